/* Where a Cortex-M begins: its vectors, the memory that C expects, and how it ends, which it tells QEMU. */
#include <stdint.h>

#include "semihosting.h"

extern uint32_t data_from[], data_start[], data_end[], zeros_start[], zeros_end[], stack_top[];
int main(void);

enum { FAULT = 3 };

static void start(void) {
  /* Coprocessors 10 and 11, the floating-point unit. */
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
  __asm volatile("dsb\n isb");
  for (uint32_t *to = data_start, *from = data_from; to < data_end; ++to, ++from) *to = *from;
  for (uint32_t *at = zeros_start; at < zeros_end; ++at) *at = 0;
  semihosting_exit(main());
}

static void fault(void) {
  semihosting_say("error: the processor stopped at a fault: an instruction it lacks, or memory it does not have\n");
  semihosting_exit(FAULT);
}

__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    stack_top, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
