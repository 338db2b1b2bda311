// Handing stdin and stdout to the program of another variant of the same portfolio, between two requests.
//
// The portfolio keeps the programs at variants/NAME/TARGET/run. Before anything is handed over, the files of the other
// variant are compared with their checksums, and its program is started on the side: it must load its model, run it, and say
// that it takes and gives the same as this one. If it cannot, even by crashing, this one goes on. Then this process becomes
// the other program, and the system frees what the old one held.
#pragma once
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "regular.h"
#include "sha256.h"

class Switching {
 public:
  // `folder` is where this program lies. `launcher` are words, with spaces between them, that start a program of the target
  // on this machine, or nullptr if it can start by itself. `signature` is what the model takes and gives.
  Switching(const char* folder, const char* launcher, const char* signature, int threads)
      : folder_(folder), launcher_(launcher), signature_(signature), threads_(threads) {}

  // Becomes the program of variant `name`. Returns only if that cannot be: with the reason, in one line.
  const char* become(const char* name) {
    if (!is_name(name)) return refused("'%.100s' is no name of a variant", name);
    char place[kMostPath];
    if (const char* error = find(name, place)) return error;
    if (const char* error = check_sums(name, place)) return error;
    if (const char* error = try_out(name, place)) return error;
    const char* words[kMostWords];
    char threads[16], spare[kMostPath];
    snprintf(threads, sizeof threads, "%d", threads_);
    int count = start(words, spare, place);
    const char* const options[] = {"--serve", "--switched", name, "--threads", threads};
    for (const char* option : options) words[count++] = option;
    if (launcher_) words[count++] = "--launcher", words[count++] = launcher_;
    words[count] = nullptr;
    execv(words[0], const_cast<char**>(words));
    return refused("the program of variant '%s' cannot be started", name);
  }

 private:
  static constexpr int kMostPath = 4096, kMostWords = 64, kMostText = 8192;

  static bool is_name(const char* name) {
    for (const char* at = name; *at; ++at) {
      if (!isalnum(static_cast<unsigned char>(*at)) && !strchr("-_.", *at)) return false;
    }
    return *name && *name != '.' && strlen(name) <= 100;
  }

  const char* refused(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(reason_, sizeof reason_, format, values);
    va_end(values);
    return reason_;
  }

  static FILE* opened(const char* path) {
    const int file = regular::open_file(path);
    return file < 0 ? nullptr : fdopen(file, "rb");
  }

  // variants/OWN/TARGET -> variants/NAME/TARGET
  const char* find(const char* name, char* place) {
    const char* target = strrchr(folder_, '/');
    const char* own = target;
    while (own && own > folder_ && own[-1] != '/') --own;
    if (!own || own == folder_) return refused("this program does not lie in a portfolio");
    const int length = snprintf(place, kMostPath, "%.*s%s%s", static_cast<int>(own - folder_), folder_, name, target);
    return length < kMostPath - 64 ? nullptr : refused("the path of variant '%s' is too long", name);
  }

  const char* check_sums(const char* name, const char* place) {
    char path[kMostPath + 600], line[600], wanted[65], found[65], file[512];
    snprintf(path, sizeof path, "%s/SHA256SUMS", place);
    FILE* sums = opened(path);
    if (!sums) return refused("there is no variant '%s' at %s", name, place);
    const char* error = nullptr;
    bool program = false;
    while (!error && fgets(line, sizeof line, sums)) {
      if (sscanf(line, "%64[0-9a-f]  %511[^\n]", wanted, file) != 2 || strchr(file, '/')) {
        error = refused("SHA256SUMS of variant '%s' is damaged", name);
        break;
      }
      program |= !strcmp(file, "run");
      snprintf(path, sizeof path, "%s/%s", place, file);
      FILE* content = opened(path);
      if (!content) {
        error = refused("variant '%s' lacks '%s'", name, file);
      } else {
        if (!Sha256::of_file(content, found) || strcmp(found, wanted)) {
          error = refused("'%s' of variant '%s' does not have its checksum", file, name);
        }
        fclose(content);
      }
    }
    fclose(sums);
    return error || program ? error : refused("variant '%s' has no program", name);
  }

  // The words that start the program in `place`; `spare` keeps those of the launcher. Returns how many there are.
  int start(const char** words, char* spare, char* place) {
    int count = 0;
    if (launcher_) {
      snprintf(spare, kMostPath, "%s", launcher_);
      for (char* word = strtok(spare, " "); word && count < kMostWords - 10; word = strtok(nullptr, " ")) {
        words[count++] = word;
      }
    }
    strcat(place, "/run");
    words[count++] = place;
    return count;
  }

  const char* try_out(const char* name, const char* folder) {
    const char* words[kMostWords];
    char place[kMostPath], spare[kMostPath], text[kMostText];
    snprintf(place, sizeof place, "%s", folder);
    int count = start(words, spare, place);
    words[count++] = "--signature";
    words[count] = nullptr;
    int ends[2];
    if (pipe(ends)) return refused("there are too many open files");
    const pid_t child = fork();
    if (child == 0) {
      // Nothing of what the child says may get among the answers.
      dup2(ends[1], 1);
      dup2(ends[1], 2);
      close(0);
      execv(words[0], const_cast<char**>(words));
      _exit(127);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t part = 0;
    while (length < sizeof text - 1 && (part = read(ends[0], text + length, sizeof text - 1 - length)) > 0) {
      length += static_cast<size_t>(part);
    }
    close(ends[0]);
    text[length] = 0;
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) return refused("no process can be started");
    if (WIFSIGNALED(status)) return refused("the program of variant '%s' was ended by signal %d", name, WTERMSIG(status));
    if (WEXITSTATUS(status) == 127) return refused("the program of variant '%s' cannot be started", name);
    if (WEXITSTATUS(status)) {
      text[strcspn(text, "\n")] = 0;
      return refused("variant '%s' cannot run: %.300s", name, strncmp(text, "error: ", 7) ? text : text + 7);
    }
    if (strcmp(text, signature_)) return refused("variant '%s' does not take and give the same", name);
    return nullptr;
  }

  const char* folder_;
  const char* launcher_;
  const char* signature_;
  int threads_;
  char reason_[1024];
};
