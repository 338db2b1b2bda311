/* QEMU plugin: misses of a hierarchy of data caches, for every instruction that reads or writes memory.
 *
 * Arguments: out=FILE and, from the first level outwards, level=BYTES:WAYS as often as there are levels. Lines of the
 * file: "file INDEX PATH", and "access FILE OFFSET MISSES MISSES ...", one MISSES for each level; FILE is -1 for code
 * that is in no file.
 *
 * Every level is set-associative with lines of 64 bytes, replaces the line that was used longest ago, and is filled by
 * reads and writes alike. A level sees what the one before missed. There is no prefetching, and lines that are written
 * back are not counted. One thread.
 */
#include <inttypes.h>

#include "mapped_files.h"
#include "qemu_plugin.h"

enum { BUCKETS = 1 << 16, LINE_BITS = 6, LEVELS = 3 };

typedef struct {
  uint64_t sets, ways, mask; /* mask: sets - 1 where that selects a set, else 0 */
  uint64_t *lines; /* of each set, the line used last in front; 0 is empty */
} cache;

typedef struct instruction {
  struct instruction *next;
  uint64_t address, offset;
  int file;
  uint64_t misses[LEVELS];
} instruction;

int qemu_plugin_version = 1;
static cache levels[LEVELS];
static int level_count;
static instruction *table[BUCKETS];
static char *out;

/* Whether `line` was in the cache. It is in front of its set afterwards. */
static bool touch(cache *c, uint64_t line) {
  uint64_t *set = c->lines + (c->mask ? line & c->mask : line % c->sets) * c->ways, wanted = line + 1;
  if (set[0] == wanted) return true;
  uint64_t way = 1;
  while (way < c->ways && set[way] != wanted) way++;
  bool hit = way < c->ways;
  if (!hit) way = c->ways - 1;
  memmove(set + 1, set, way * sizeof *set);
  set[0] = wanted;
  return hit;
}

static void touch_all(instruction *of, uint64_t line) {
  for (int level = 0; level < level_count && !touch(&levels[level], line); level++) of->misses[level]++;
}

static uint64_t previous = UINT64_MAX; /* the line touched last: in front of its set, wherever it is looked for */

static void accessed(unsigned cpu, qemu_plugin_meminfo_t what, uint64_t address, void *data) {
  (void)cpu;
  uint64_t first = address >> LINE_BITS;
  uint64_t last = (address + (UINT64_C(1) << qemu_plugin_mem_size_shift(what)) - 1) >> LINE_BITS;
  if (first == previous && last == previous) return;
  for (uint64_t line = first; line <= last; line++) touch_all(data, line);
  previous = last;
}

static instruction *find(struct qemu_plugin_insn *translated) {
  uint64_t address = qemu_plugin_insn_vaddr(translated), offset;
  int file = mapped_file(qemu_plugin_insn_haddr(translated), &offset);
  instruction **bucket = &table[(address >> 1) % BUCKETS];
  for (instruction *i = *bucket; i; i = i->next)
    if (i->address == address && i->file == file && i->offset == offset) return i;
  instruction *made = calloc(1, sizeof *made);
  made->address = address, made->file = file, made->offset = offset, made->next = *bucket;
  return *bucket = made;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t instructions = qemu_plugin_tb_n_insns(tb);
  for (size_t i = 0; i < instructions; i++) {
    struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(tb, i);
    qemu_plugin_register_vcpu_mem_cb(one, accessed, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, find(one));
  }
}

static void finished(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  FILE *stream = fopen(out, "w");
  if (!stream) return;
  mapped_write(stream);
  for (int bucket = 0; bucket < BUCKETS; bucket++)
    for (instruction *i = table[bucket]; i; i = i->next) {
      if (!i->misses[0]) continue;
      fprintf(stream, "access %d %" PRIx64, i->file, i->offset);
      for (int level = 0; level < level_count; level++) fprintf(stream, " %" PRIu64, i->misses[level]);
      fputc('\n', stream);
    }
  fputs("end\n", stream);
  fclose(stream);
}

static bool add_level(const char *text) {
  uint64_t bytes, ways;
  if (level_count == LEVELS || sscanf(text, "%" SCNu64 ":%" SCNu64, &bytes, &ways) != 2 || !ways) return false;
  uint64_t sets = (bytes >> LINE_BITS) / ways;
  if (!sets) return false;
  uint64_t mask = sets & (sets - 1) ? 0 : sets - 1;
  levels[level_count++] = (cache){sets, ways, mask, calloc(sets * ways, sizeof(uint64_t))};
  return true;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  bool good = true;
  for (int i = 0; i < argc; i++) {
    if (!strncmp(argv[i], "out=", 4)) out = strdup(argv[i] + 4);
    if (!strncmp(argv[i], "level=", 6)) good = good && add_level(argv[i] + 6);
  }
  if (!out || !good || !level_count) {
    fputs("caches: give out=FILE and one to three level=BYTES:WAYS\n", stderr);
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finished, NULL);
  return 0;
}
