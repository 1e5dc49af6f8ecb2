/* cpu.h: whether the processor has what only some have: CPU_HAS(AVX2, "avx2"), on x86-64.
 *
 * glibc has asked the processor, and knows. What the compiler has asks again, a dozen times before main(), and a virtual
 * processor takes 5 us for each answer. */
#ifndef EVBUS_BASE_CPU_H
#define EVBUS_BASE_CPU_H

#if __has_include(<sys/platform/x86.h>)
#include <sys/platform/x86.h>
#define CPU_HAS(feature, name) CPU_FEATURE_ACTIVE(feature)
#else
#define CPU_HAS(feature, name) __builtin_cpu_supports(name)
#endif

#endif
