/* The wire that the sending end, and a hop, send by. */
#pragma once

#include "frame.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wire SEC(".maps");

ALWAYS_INLINE int by_wire(void)
{
	return bpf_redirect_map(&wire, 0, XDP_ABORTED);
}
