/* The model on a processor without an operating system, under QEMU: files of plain bytes in, files of plain bytes out.
 * Files that hold several inputs, one after the other, are several calls in turn. */
#include "bare_model.h"
#include "semihosting.h"

enum { BAD_INPUT = 2, FAILED = 1 };

static intptr_t files[INPUTS + OUTPUTS + 1];

static int opened(int mode, const char *kind, int count, intptr_t *at) {
  for (int index = 0; index < count; ++index) {
    char name[16];
    int length = 0;
    for (const char *from = kind; *from; ++from) name[length++] = *from;
    if (index > 9) name[length++] = (char)('0' + index / 10);
    name[length++] = (char)('0' + index % 10);
    name[length] = 0;
    at[index] = semihosting_open(mode, name, (size_t)length);
    if (at[index] < 0) return 0;
  }
  return 1;
}

/* Whether there are inputs for another call; -1 if one is too short. */
static int next_inputs(int call) {
  if (call && (!INPUTS || !inputs[0].bytes)) return 0;
  for (int i = 0; i < INPUTS; ++i) {
    const size_t left = semihosting_move(SYS_READ, files[i], inputs[i].data, inputs[i].bytes);
    if (call && !i && left == inputs[i].bytes) return 0;
    if (left) return -1;
  }
  return 1;
}

int main(void) {
  int more = opened(MODE_READ, "input", INPUTS, files) ? next_inputs(0) : -1;
  if (more > 0 && !opened(MODE_WRITE, "output", OUTPUTS, files + INPUTS)) more = -2;
  for (int call = 1; more > 0; ++call) {
    if (run_model()) {
      semihosting_say("error: reconvene_run failed\n");
      return FAILED;
    }
    for (int i = 0; i < OUTPUTS; ++i) {
      if (semihosting_move(SYS_WRITE, files[INPUTS + i], outputs[i].data, outputs[i].bytes)) more = -2;
    }
    if (more > 0) more = next_inputs(call);
  }
  for (int i = 0; i < INPUTS + OUTPUTS; ++i) {
    if (files[i] > 0) semihosting_close(files[i]);
  }
  if (!more) return 0;
  semihosting_say(more == -1 ? "error: an input is missing or too short\n" : "error: cannot write an output\n");
  return BAD_INPUT;
}
