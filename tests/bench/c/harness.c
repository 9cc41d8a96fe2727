/* Restores a frame and tail-calls the program in the slot. The kernel's test run resets neither a frame's length nor its
 * bytes between two repeats, so a program that encapsulates would fail in its second one. The same harness with `nothing`
 * in the slot is what a measurement is compared with. */
#include "frame.h"

#include <linux/pkt_cls.h>

/* More than the headers of any frame here. */
#define MAX_FRAME 128
/* A TCP acknowledgement, and the shortest frame. */
#define ACK_LEN 54
#define PADDED_LEN 60
/* EIPs of one node, as a power of two. */
#define NODE_BITS 7

struct frame {
	/* Addresses in use minus one: a power of two minus one. */
	__u32 mask;
	/* Where the random order stands. */
	__u32 state;
	/* First addresses, host order, low 20 bits clear: EIP or pod, and node. */
	__u32 address;
	__u32 node;
	__u8 bytes[MAX_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct frame);
} frames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} slot SEC(".maps");

/* The next of the addresses, each once until all have been: a linear congruential generator of full period modulo any
 * power of two. */
ALWAYS_INLINE __u32 next(struct frame *frame)
{
	frame->state = frame->state * 1664525 + 1013904223;
	return frame->state & frame->mask;
}

/* Adds to what a checksum covers; as for UDP, where zero would say that there is none. */
ALWAYS_INLINE void add(__be16 *field, __u32 change)
{
	__u16 checksum = carried(bpf_ntohs(*field), change);

	*field = bpf_htons(checksum ? checksum : 0xffff);
}

/* The words of an index, which is added to an address whose low 20 bits are clear. */
ALWAYS_INLINE __u32 words(__u32 index)
{
	return (index >> 16) + (index & 0xffff);
}

/* A packet to the next EIP. */
ALWAYS_INLINE void vary_external(struct frame *frame, void *data)
{
	__u32 index = next(frame);

	*(__be32 *)(data + DESTINATION_AT) = bpf_htonl(frame->address + index);
	add(data + IP_CHECKSUM_AT, words(index));
	add(data + UDP_CHECKSUM_AT, words(index));
}

/* A packet from the next pod, through the tunnel from its node. */
ALWAYS_INLINE void vary_underlay(struct frame *frame, void *data)
{
	__u32 index = next(frame), node = index >> NODE_BITS;
	void *inner = data + TUNNEL_LEN;

	*(__be32 *)(data + SOURCE_AT) = bpf_htonl(frame->node + node);
	add(data + IP_CHECKSUM_AT, node);
	*(__be32 *)(inner + SOURCE_AT) = bpf_htonl(frame->address + index);
	add(inner + IP_CHECKSUM_AT, words(index));
	add(inner + UDP_CHECKSUM_AT, words(index));
	/* It covers the node's address, and the inner UDP checksum, which went down by what the pod's address went up. Zero
	 * says that there is none. */
	if (*(__be16 *)(data + UDP_CHECKSUM_AT))
		add(data + UDP_CHECKSUM_AT, node + (__u16)~fold(words(index)));
}

/* Gives an acknowledgement the padding back that the program cut off on its way into the tunnel. */
ALWAYS_INLINE int pad(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data == ACK_LEN + TUNNEL_LEN && bpf_xdp_adjust_tail(ctx, PADDED_LEN - ACK_LEN);
}

ALWAYS_INLINE int restore(struct xdp_md *ctx, const int len, void (*vary)(struct frame *, void *))
{
	__u32 first = 0;
	struct frame *frame = bpf_map_lookup_elem(&frames, &first);

	if (!frame || bpf_xdp_adjust_head(ctx, (int)(ctx->data_end - ctx->data) - len))
		return XDP_ABORTED;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + len > end)
		return XDP_ABORTED;
	copy(data, frame->bytes, len);
	if (vary)
		vary(frame, data);
	bpf_tail_call(ctx, &slot, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags") int restore_60(struct xdp_md *ctx)
{
	return pad(ctx) ? XDP_ABORTED : restore(ctx, PADDED_LEN, 0);
}

SEC("xdp.frags") int restore_64(struct xdp_md *ctx)
{
	return restore(ctx, 64, 0);
}

SEC("xdp.frags") int restore_114(struct xdp_md *ctx)
{
	return restore(ctx, 64 + TUNNEL_LEN, 0);
}

SEC("xdp.frags") int restore_external(struct xdp_md *ctx)
{
	return restore(ctx, 64, vary_external);
}

SEC("xdp.frags") int restore_underlay(struct xdp_md *ctx)
{
	return restore(ctx, 64 + TUNNEL_LEN, vary_underlay);
}

SEC("xdp.frags") int nothing(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* What a program in TC is compared with. */
SEC("classifier") int nothing_skb(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
