/* 64 KiB flat firmware: reset vector at the end; built for base 0xF0000 */
base:
.code16
.globl _start
start16:
  cli
  movw %cs, %ax
  movw %ax, %ds
  lgdtl %cs:(gdtr - base)
  movl %cr0, %eax
  orb $1, %al
  movl %eax, %cr0
  ljmpl $8, $(0xF0000 + (prot - base))
.code32
prot:
  movw $16, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  movl $0x8000, %esp
  /* page tables: PML4 0x1000, PDPT 0x2000, PD 0x3000; one 2 MiB page identity mapped */
  xorl %eax, %eax
  movl $0x1000, %edi
  movl $0xC00, %ecx
  rep stosl
  movl $0x2003, 0x1000
  movl $0x3003, 0x2000
  movl $0x0083, 0x3000
  movl $0x1000, %eax
  movl %eax, %cr3
  movl %cr4, %eax
  orl $0x620, %eax       /* PAE, OSFXSR, OSXMMEXCPT */
  movl %eax, %cr4
  movl $0xC0000080, %ecx
  rdmsr
  orl $0x101, %eax       /* LME, SCE */
  wrmsr
  movl %cr0, %eax
  orl $0x80000000, %eax
  movl %eax, %cr0
  ljmpl $24, $(0xF0000 + (long - base))
.code64
long:
  movl $0x6000, %edi
  xorl %eax, %eax
  xorl %edx, %edx
  movl $1, %ebx
  xorl %ecx, %ecx
  movq %rax, (%rdi)
  movq %rax, 8(%rdi)
  lock cmpxchg16b (%rdi)
  jnz fail
  fwait
  movl $3000000, %ecx
1: decl %ecx
  jnz 1b
  movw $0x501, %dx
  movb $0x10, %al
  outb %al, %dx
fail:
  movw $0x501, %dx
  movb $0x11, %al
  outb %al, %dx
2: hlt
  jmp 2b
.balign 8
gdt:
  .quad 0
  .quad 0x00CF9B000000FFFF
  .quad 0x00CF93000000FFFF
  .quad 0x00AF9B000000FFFF
gdtr:
  .word gdtr - gdt - 1
  .long 0xF0000 + (gdt - base)
