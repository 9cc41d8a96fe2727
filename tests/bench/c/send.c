/* The sending end of the chain of `bench hop`: for each live frame of the kernel's test run, the next of the frames that were
 * made before. It does as little as it can, since what it takes is part of the packets per second of all candidates. */
#include "wire.h"

/* A power of two. */
#define FRAMES 1024
/* A multiple of a cache line. */
#define MAX_FRAME 128

struct frame {
	__u8 bytes[MAX_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FRAMES);
	__type(key, __u32);
	__type(value, struct frame);
} frames SEC(".maps");

__u32 sent = 0;

ALWAYS_INLINE int send(struct xdp_md *ctx, const int len)
{
	void *data = (void *)(long)ctx->data;
	__u32 index = sent++ & (FRAMES - 1);
	struct frame *frame = bpf_map_lookup_elem(&frames, &index);

	if (!frame || data + len > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	copy(data, frame->bytes, len);
	return by_wire();
}

SEC("xdp.frags") int send_64(struct xdp_md *ctx)
{
	return send(ctx, 64);
}

SEC("xdp.frags") int send_114(struct xdp_md *ctx)
{
	return send(ctx, 64 + TUNNEL_LEN);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
