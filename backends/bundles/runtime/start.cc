// Where the program starts when it is linked against a new C library but is to run with an old one.
//
// The start code of glibc 2.34 and later asks for __libc_start_main of that version, and nothing else here asks for more
// than the first one of the architecture. This start asks for that; both old and new libraries have it. There are no
// constructors to run: the program has none.
#if defined(__aarch64__)
asm(".symver __libc_start_main, __libc_start_main@GLIBC_2.17\n"
    ".text\n"
    ".global _start\n"
    ".type _start, %function\n"
    "_start:\n"
    "  mov x29, #0\n"
    "  mov x30, #0\n"
    "  mov x5, x0\n"
    "  ldr x1, [sp]\n"
    "  add x2, sp, #8\n"
    "  mov x6, sp\n"
    "  adrp x0, main\n"
    "  add x0, x0, :lo12:main\n"
    "  mov x3, #0\n"
    "  mov x4, #0\n"
    "  bl __libc_start_main\n"
    "  brk #1\n");
#elif defined(__x86_64__)
asm(".symver __libc_start_main, __libc_start_main@GLIBC_2.2.5\n"
    ".text\n"
    ".global _start\n"
    ".type _start, @function\n"
    "_start:\n"
    "  xor %ebp, %ebp\n"
    "  mov %rdx, %r9\n"
    "  pop %rsi\n"
    "  mov %rsp, %rdx\n"
    "  and $-16, %rsp\n"
    "  push %rax\n"
    "  push %rsp\n"
    "  xor %r8d, %r8d\n"
    "  xor %ecx, %ecx\n"
    "  lea main(%rip), %rdi\n"
    "  call *__libc_start_main@GOTPCREL(%rip)\n"
    "  hlt\n");
#else
#error "no start code for this architecture"
#endif
