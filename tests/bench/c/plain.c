/* What our programs are compared with: single steps, and the least that takes a packet in and out.
 *
 * `in_*` and `out_*` do: find the packet's row (one look-up, which also tells the next hop), translate one address, take one
 * from the TTL, carry both changes into the checksums of IPv4, TCP and UDP, put the tunnel on or off, redirect; out also
 * compares the node that sent with the row. They do not: count, look at the configuration, answer ARP, echo or errors,
 * clamp MSS, look at lengths and path MTU, know a next hop apart from the row, write or verify the outer UDP checksum,
 * look at ICMP errors, Geneve options or ECN, take IPv4 options or later fragments. */
#include "frame.h"

#define VNI 0x00e19001
#define GENEVE_PORT 6081
#define TCP 6
#define UDP 17

/* A row for either direction, network order. */
struct row {
	/* The pod's address on the way in, the EIP on the way out. */
	__be32 address;
	__be32 node;
	__u32 ifindex;
	__u8 destination_mac[6];
	__u8 source_mac[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct row);
} plain_eips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct row);
} plain_pods SEC(".maps");

/* The same by address minus the first one; the agent would have to know the networks. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct row);
} cidr_eips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct row);
} cidr_pods SEC(".maps");

struct settings {
	__be32 local_node;
	/* First addresses of the arrays, host order. */
	__u32 first_eip;
	__u32 first_pod;
};

/* Written before the program is loaded. */
volatile const struct settings settings;

ALWAYS_INLINE struct row *hashed_eip(__be32 address)
{
	return bpf_map_lookup_elem(&plain_eips, &address);
}

ALWAYS_INLINE struct row *hashed_pod(__be32 address)
{
	return bpf_map_lookup_elem(&plain_pods, &address);
}

ALWAYS_INLINE struct row *indexed_eip(__be32 address)
{
	__u32 index = bpf_ntohl(address) - settings.first_eip;

	return bpf_map_lookup_elem(&cidr_eips, &index);
}

ALWAYS_INLINE struct row *indexed_pod(__be32 address)
{
	__u32 index = bpf_ntohl(address) - settings.first_pod;

	return bpf_map_lookup_elem(&cidr_pods, &index);
}

/* An address field becomes another address, the TTL goes down by one. */
ALWAYS_INLINE int translate(void *data, void *end, int field, __be32 address)
{
	__be32 *addressed = data + field;
	__u8 protocol = *(__u8 *)(data + IP_AT + 9);
	__u32 change = difference(*addressed, address);
	__be16 *ip_checksum = data + IP_CHECKSUM_AT;
	__be16 *l4_checksum = 0;

	if (protocol == UDP)
		l4_checksum = data + UDP_CHECKSUM_AT;
	else if (protocol == TCP)
		l4_checksum = data + L4_AT + 16;
	if (l4_checksum) {
		if ((void *)(l4_checksum + 1) > end)
			return -1;
		if (*l4_checksum || protocol == TCP)
			*l4_checksum = carried(*l4_checksum, change);
		if (!*l4_checksum && protocol == UDP)
			*l4_checksum = 0xffff;
	}
	*addressed = address;
	*(__u8 *)(data + IP_AT + 8) -= 1;
	/* The TTL is the first byte of its word. */
	*ip_checksum = carried(*ip_checksum, change + (__u16)~1);
	return 0;
}

/* The tunnel's headers in the order of the wire. */
struct tunnel {
	__u8 destination_mac[6], source_mac[6];
	__be16 ethertype;
	__u8 version, tos;
	__be16 total_len, identification, fragment;
	__u8 ttl, protocol;
	__be16 checksum;
	__be32 source, destination;
	__be16 source_port, destination_port, udp_len, udp_checksum;
	__u8 options, flags;
	__be16 protocol_type;
	__be32 vni;
	__u8 inner_destination_mac[6], inner_source_mac[6];
	__be16 inner_ethertype;
} __attribute__((packed, aligned(2)));

_Static_assert(sizeof(struct tunnel) == TUNNEL_LEN + ETH_LEN, "outer headers and the inner Ethernet header");

ALWAYS_INLINE void encapsulate(struct tunnel *t, const struct row *row, __u8 tos, __u16 inner_len, __u32 flow)
{
	__u16 total = inner_len + sizeof(*t) - ETH_LEN;
	/* What does not change: 0x4500, DF, TTL and protocol. */
	__u32 sum = bpf_htons(0x4500) + bpf_htons(0x4000) + bpf_htons(64 << 8 | UDP);
	__be32 local = settings.local_node;

	__builtin_memcpy(t->destination_mac, row->destination_mac, 6);
	__builtin_memcpy(t->source_mac, row->source_mac, 6);
	t->ethertype = bpf_htons(0x0800);
	t->version = 0x45;
	t->tos = tos;
	t->total_len = bpf_htons(total);
	t->identification = 0;
	t->fragment = bpf_htons(0x4000);
	t->ttl = 64;
	t->protocol = UDP;
	t->source = local;
	t->destination = row->node;
	sum += bpf_htons(tos) + t->total_len + (__u16)local + (local >> 16) + (__u16)row->node + (row->node >> 16);
	t->checksum = ~fold(sum);
	t->source_port = (flow >> 16 ^ flow) | bpf_htons(0xc000);
	t->destination_port = bpf_htons(GENEVE_PORT);
	t->udp_len = bpf_htons(total - IP_LEN);
	t->udp_checksum = 0;
	t->options = 0;
	t->flags = 0;
	t->protocol_type = bpf_htons(0x6558);
	t->vni = bpf_htonl(VNI << 8);
	__builtin_memcpy(t->inner_destination_mac, "\x02" "eipwk", 6);
	__builtin_memcpy(t->inner_source_mac, "\x02" "eipgw", 6);
	t->inner_ethertype = bpf_htons(0x0800);
}

/* IPv4 without options that may take another hop. */
ALWAYS_INLINE bool is_plain_ipv4(const void *frame)
{
	return *(__be16 *)(frame + 12) == bpf_htons(0x0800) && *(__u8 *)(frame + IP_AT) == 0x45 &&
	       *(__u8 *)(frame + IP_AT + 8) > 1 && !(*(__be16 *)(frame + IP_AT + 6) & bpf_htons(0x1fff));
}

ALWAYS_INLINE int in(struct xdp_md *ctx, struct row *(*find)(__be32))
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + L4_AT + 8 > end || !is_plain_ipv4(data))
		return XDP_PASS;
	struct row *row = find(*(__be32 *)(data + DESTINATION_AT));

	if (!row)
		return XDP_PASS;
	__u32 flow = *(__u32 *)(data + SOURCE_AT) ^ *(__u32 *)(data + DESTINATION_AT) ^ *(__u32 *)(data + L4_AT);
	__u16 len = bpf_ntohs(*(__be16 *)(data + IP_AT + 2));
	__u8 tos = *(__u8 *)(data + IP_AT + 1);

	if (translate(data, end, DESTINATION_AT, row->address) || bpf_xdp_adjust_head(ctx, -TUNNEL_LEN))
		return XDP_DROP;
	struct tunnel *tunnel = (void *)(long)ctx->data;

	if ((void *)(tunnel + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	encapsulate(tunnel, row, tos, len, flow);
	return bpf_redirect(row->ifindex, 0);
}

ALWAYS_INLINE int out(struct xdp_md *ctx, struct row *(*find)(__be32))
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *inner = data + TUNNEL_LEN;

	if (inner + L4_AT + 8 > end || !is_plain_ipv4(data))
		return XDP_PASS;
	struct tunnel *tunnel = data;
	bool ours = tunnel->protocol == UDP && tunnel->destination == settings.local_node &&
		    tunnel->destination_port == bpf_htons(GENEVE_PORT) && tunnel->vni == bpf_htonl(VNI << 8) &&
		    !tunnel->options && !tunnel->flags;

	if (!ours)
		return XDP_PASS;
	__be32 node = tunnel->source;

	if (!is_plain_ipv4(inner))
		return XDP_DROP;
	struct row *row = find(*(__be32 *)(inner + SOURCE_AT));

	if (!row || row->node != node || bpf_xdp_adjust_head(ctx, TUNNEL_LEN))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + L4_AT + 8 > end || translate(data, end, SOURCE_AT, row->address))
		return XDP_DROP;
	__builtin_memcpy(data, row->destination_mac, 6);
	__builtin_memcpy(data + 6, row->source_mac, 6);
	return bpf_redirect(row->ifindex, 0);
}

SEC("xdp.frags") int in_hash(struct xdp_md *ctx)
{
	return in(ctx, hashed_eip);
}

SEC("xdp.frags") int in_array(struct xdp_md *ctx)
{
	return in(ctx, indexed_eip);
}

SEC("xdp.frags") int out_hash(struct xdp_md *ctx)
{
	return out(ctx, hashed_pod);
}

SEC("xdp.frags") int out_array(struct xdp_md *ctx)
{
	return out(ctx, indexed_pod);
}

SEC("xdp.frags") int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp.frags") int swap_macs(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u8 mac[6];

	if (data + ETH_LEN > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(mac, data, 6);
	__builtin_memcpy(data, data + 6, 6);
	__builtin_memcpy(data + 6, mac, 6);
	return XDP_TX;
}

SEC("xdp.frags") int look_up(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;

	if (data + L4_AT > (void *)(long)ctx->data_end)
		return XDP_DROP;
	return hashed_eip(*(__be32 *)(data + DESTINATION_AT)) ? XDP_TX : XDP_PASS;
}

SEC("xdp.frags") int redirect(struct xdp_md *ctx)
{
	return bpf_redirect(12, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
