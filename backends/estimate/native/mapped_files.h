/* Which file, and which byte of it, an instruction of the emulated program comes from.
 *
 * QEMU maps the program's files into its own process, so /proc/self/maps answers for the address that an
 * instruction has there. A library may be unloaded before the program ends: the question is put when code is
 * translated, not at the end.
 */
#ifndef RECONVENE_MAPPED_FILES_H
#define RECONVENE_MAPPED_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint64_t start, end, offset;
  char *path; /* NULL for memory without a file */
} mapping;

static char **mapped_names;
static int mapped_count;
static mapping *mappings;
static size_t mappings_used, mappings_room;

static int mapped_name(const char *path) {
  for (int i = 0; i < mapped_count; i++)
    if (!strcmp(mapped_names[i], path)) return i;
  mapped_names = realloc(mapped_names, sizeof *mapped_names * (mapped_count + 1));
  mapped_names[mapped_count] = strdup(path);
  return mapped_count++;
}

static void mapped_read(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char *line = NULL;
  size_t length = 0;
  while (mappings_used) free(mappings[--mappings_used].path);
  if (!maps) return;
  while (getline(&line, &length, maps) > 0) {
    unsigned long long start, end, offset;
    int path = 0;
    if (sscanf(line, "%llx-%llx %*s %llx %*s %*s %n", &start, &end, &offset, &path) < 3 || !path) continue;
    line[strcspn(line, "\n")] = 0;
    if (mappings_used == mappings_room) {
      mappings_room = mappings_room ? 2 * mappings_room : 256;
      mappings = realloc(mappings, sizeof *mappings * mappings_room);
    }
    mappings[mappings_used++] = (mapping){start, end, offset, line[path] == '/' ? strdup(line + path) : NULL};
  }
  free(line);
  fclose(maps);
}

/* The file's index and the offset in it of host address `address`; -1 and 0 for memory without a file. */
static int mapped_file(const void *address, uint64_t *offset) {
  uint64_t wanted = (uint64_t)(uintptr_t)address;
  for (int attempt = 0; attempt < 2; attempt++) {
    for (size_t i = 0; i < mappings_used; i++)
      if (mappings[i].start <= wanted && wanted < mappings[i].end) {
        *offset = mappings[i].path ? wanted - mappings[i].start + mappings[i].offset : 0;
        return mappings[i].path ? mapped_name(mappings[i].path) : -1;
      }
    mapped_read();
  }
  *offset = 0;
  return -1;
}

static void mapped_write(FILE *out) {
  for (int i = 0; i < mapped_count; i++) fprintf(out, "file %d %s\n", i, mapped_names[i]);
}

#endif
