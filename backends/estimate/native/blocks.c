/* QEMU plugin: how often every translated block ran, with its code.
 *
 * Arguments: out=FILE. Lines of the file: "file INDEX PATH", and
 * "block FILE OFFSET ADDRESS COUNT HEX HEX ...", one HEX for each instruction; FILE is -1 for code that is in no file.
 *
 * The counters are added to inline and not atomically, so counts are right for programs of one thread.
 */
#include <inttypes.h>

#include "mapped_files.h"
#include "qemu_plugin.h"

enum { BUCKETS = 1 << 16 };

typedef struct block {
  struct block *next;
  uint64_t address, offset, count;
  int file;
  size_t instructions, bytes;
  unsigned char *sizes, *code;
} block;

int qemu_plugin_version = 1;
static block *table[BUCKETS];
static char *out;
static int thumb; /* whether the machine is a microcontroller: QEMU's ARM boards that we use have no others */

/* The bytes of an instruction. Before the end of a page QEMU looks at the halfword that follows one of Thumb, to see whether
 * the next lies across, and reports it as a part of this one. */
static unsigned char size_of(const struct qemu_plugin_insn *instruction) {
  if (!thumb) return (unsigned char)qemu_plugin_insn_size(instruction);
  const unsigned char *data = qemu_plugin_insn_data(instruction);
  return data[1] >> 3 >= 0x1d ? 4 : 2; /* by Arm's manual, DDI 0403, A5.1 */
}

static block *find(uint64_t address, int file, uint64_t offset, const block *like) {
  block **bucket = &table[(address >> 1) % BUCKETS];
  for (block *b = *bucket; b; b = b->next)
    if (b->address == address && b->file == file && b->offset == offset && b->bytes == like->bytes &&
        b->instructions == like->instructions && !memcmp(b->code, like->code, b->bytes))
      return b;
  block *made = calloc(1, sizeof *made);
  *made = *like;
  made->address = address, made->file = file, made->offset = offset, made->count = 0;
  made->code = memcpy(malloc(like->bytes), like->code, like->bytes);
  made->sizes = memcpy(malloc(like->instructions), like->sizes, like->instructions);
  made->next = *bucket;
  *bucket = made;
  return made;
}

/* QEMU holds its translation lock here, so the table needs none of its own. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t instructions = qemu_plugin_tb_n_insns(tb);
  if (!instructions) return;
  unsigned char sizes[instructions], code[16 * instructions];
  block like = {.instructions = instructions, .sizes = sizes, .code = code};
  for (size_t i = 0; i < instructions; i++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
    sizes[i] = size_of(instruction);
    memcpy(code + like.bytes, qemu_plugin_insn_data(instruction), sizes[i]);
    like.bytes += sizes[i];
  }
  struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
  uint64_t offset;
  int file = mapped_file(qemu_plugin_insn_haddr(first), &offset);
  block *found = find(qemu_plugin_insn_vaddr(first), file, offset, &like);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &found->count, 1);
}

static void finished(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  FILE *stream = fopen(out, "w");
  if (!stream) return;
  mapped_write(stream);
  for (int bucket = 0; bucket < BUCKETS; bucket++)
    for (block *b = table[bucket]; b; b = b->next) {
      if (!b->count) continue;
      fprintf(stream, "block %d %" PRIx64 " %" PRIx64 " %" PRIu64, b->file, b->offset, b->address, b->count);
      const unsigned char *byte = b->code;
      for (size_t i = 0; i < b->instructions; i++) {
        fputc(' ', stream);
        for (int n = 0; n < b->sizes[i]; n++) fprintf(stream, "%02x", *byte++);
      }
      fputc('\n', stream);
    }
  fputs("end\n", stream);
  fclose(stream);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  thumb = info->system_emulation && !strcmp(info->target_name, "arm");
  for (int i = 0; i < argc; i++)
    if (!strncmp(argv[i], "out=", 4)) out = strdup(argv[i] + 4);
  if (!out) {
    fputs("blocks: give out=FILE\n", stderr);
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finished, NULL);
  return 0;
}
