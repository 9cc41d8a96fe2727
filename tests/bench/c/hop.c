/* The receiving ends of the chain that `bench hop` sends frames through, and the least that can stand between them. One
 * object is loaded for each place it is needed at; what is to be written, and expected, is there before that. */
#include "wire.h"

#include <linux/pkt_cls.h>

/* The addresses of the Ethernet header on the wire behind. */
struct macs {
	__u8 destination_mac[6];
	__u8 source_mac[6];
};

/* What a word of a frame is to be; with a mask of zero, anything. */
struct word {
	__u32 at;
	__be32 mask;
	__be32 is;
};

#define WORDS 3

volatile const struct macs macs;
volatile const struct word expected[WORDS];

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

/* Counts the frame if it is what was to arrive here. */
ALWAYS_INLINE bool count_expected(void *data, void *end)
{
	__u32 first = 0;
	__u64 *count = bpf_map_lookup_elem(&counted, &first);

#pragma unroll
	for (int i = 0; i < WORDS; i++) {
		__be32 *word = data + (expected[i].at & 127);

		if ((void *)(word + 1) > end || (*word & expected[i].mask) != expected[i].is)
			return false;
	}
	if (count)
		*count += 1;
	return true;
}

/* In the gateway's place: a hop that looks at nothing. */
SEC("xdp.frags") int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct macs to = macs;

	if (data + ETH_LEN > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(data, to.destination_mac, 6);
	__builtin_memcpy(data + 6, to.source_mac, 6);
	return by_wire();
}

/* At the receiving end. */
SEC("xdp.frags") int count(struct xdp_md *ctx)
{
	return count_expected((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

/* At the receiving end of what a kernel puts into a tunnel: XDP there would copy each packet, which has less than 256 bytes
 * of headroom left, and that is not the gateway's work. */
SEC("classifier") int count_skb(struct __sk_buff *skb)
{
	return count_expected((void *)(long)skb->data, (void *)(long)skb->data_end) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
