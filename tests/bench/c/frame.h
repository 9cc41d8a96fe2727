/* Offsets of what the benchmark's C programs touch: IPv4 without options, and the same in our Geneve tunnel. */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_LEN 14
#define IP_LEN 20
#define TUNNEL_LEN (ETH_LEN + IP_LEN + 8 + 8)

/* In an Ethernet frame with IPv4. */
#define IP_AT ETH_LEN
#define IP_CHECKSUM_AT (IP_AT + 10)
#define SOURCE_AT (IP_AT + 12)
#define DESTINATION_AT (IP_AT + 16)
#define L4_AT (IP_AT + IP_LEN)
#define UDP_CHECKSUM_AT (L4_AT + 6)

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Copies a frame of a length that is known here by words: clang, which does not know how it is aligned, would copy bytes. These
 * take longer, and whoever reads a word of them right afterwards waits until all of them have arrived in the cache. */
ALWAYS_INLINE void copy(void *to, const void *from, const int len)
{
	int at = 0;

#pragma unroll
	for (; at + 8 <= len; at += 8)
		*(volatile __u64 *)(to + at) = *(const __u64 *)(from + at);
	if (len & 4) {
		*(volatile __u32 *)(to + at) = *(const __u32 *)(from + at);
		at += 4;
	}
	if (len & 2)
		*(volatile __u16 *)(to + at) = *(const __u16 *)(from + at);
}

/* A one's-complement sum folded to 16 bits (RFC 1071). */
ALWAYS_INLINE __u16 fold(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

/* Carries `change`, a sum of words new minus old, into a checksum field (RFC 1624, equation 3). */
ALWAYS_INLINE __u16 carried(__u16 field, __u32 change)
{
	return ~fold((__u16)~field + change);
}

/* The change of a sum when one address becomes another. In network order throughout: the sum does not mind. */
ALWAYS_INLINE __u32 difference(__u32 from, __u32 to)
{
	return (__u16)~from + (__u16)~(from >> 16) + (__u16)to + (__u16)(to >> 16);
}
