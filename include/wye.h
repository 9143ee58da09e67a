/* Wye: a userspace virtual switch as a library.
 *
 * Generated from ffi/capi by `make header`: do not edit.
 *
 * The way through this header, and so through a program:
 *
 *     wye_version_check                        does this library serve this header?
 *     wye_datapath_new                         a switch
 *     wye_worker_new                           who carries its packets; a thread has its own
 *     wye_port_add, wye_port_open              ports of the program's, and ports that the library drives
 *     wye_flow_put                             what is done with which packets: by attributes, or as text
 *     wye_tunnel_set                           what `tnl_pop` takes off and `encap` puts in front
 *     wye_gateway_new                          or let the library decide: addresses, routes, neighbours, VLANs, VPCs over tunnels
 *     wye_worker_process, wye_worker_poll      carries packets: the program's, and what the library's ports received
 *         transmit, release, upcall            what a worker calls back: send these; these are yours again; what about this one?
 *     wye_datapath_inject                      packets of the program's own making, from any thread
 *     wye_datapath_upkeep                      every second: flows age; with a gateway, wye_gateway_upkeep
 *     wye_flow_dump_start, wye_datapath_stats  what there is, and what it has counted
 *     wye_worker_free, wye_datapath_free
 *
 * The types come first, then the functions, each in this order. Programs to begin with: own_packets.c, flow_miss.c, l2_switch.c,
 * vxlan_pair.c and vxlan_gateway.c in c-examples/.
 *
 * What holds for every function:
 *
 *  - A prefix names the object: wye_flow_put, wye_worker_process. An object is freed by its _free function, for which NULL is legal.
 *  - wye_status is 0 or one of the negative WYE_E_*. Outputs are written on success only, unless a comment says otherwise. A function with
 *    a `wye_error **error` writes the reason there when it fails, in words, if that is not NULL; free it with wye_error_free.
 *  - A struct that begins with `size` is set up by its _INIT macro, so that fields of later versions are zero, their defaults. The library
 *    refuses a longer struct than it knows if the rest is not zero.
 *  - Pointers that a function gets are borrowed for the call and what they point to is copied, unless a comment says that it takes them.
 *  - Attributes are sequences of struct nlattr as in <linux/openvswitch.h>: native byte order, each padded to 4 bytes, the list's length in
 *    bytes with the last padding. Text is what ovs-dpctl reads and prints.
 *  - Time is an argument: `now_ns` is a monotonic clock of the caller's choice, the same for all calls to a datapath, never 0.
 *  - "Any thread" functions may be called by several threads at once. "The owning thread" means one thread at a time. "The control lock" is
 *    held for the length of one such call; a worker takes it to answer an upcall, and otherwise never.
 *  - A callback must not end by longjmp. A C++ exception or a panic that leaves it is caught and poisons the datapath.
 *  - Every function that gets a datapath, or what was made from one, answers WYE_E_PANIC once it is poisoned, unless it only reads or frees.
 *  - No function starts a thread, or installs a signal or exit handler; none reads a clock, except wye_datapath_quiesce and wye_worker_wait for
 *    their timeouts. In the child of a fork, handles of the parent answer WYE_E_FORKED.
 */

#ifndef WYE_H
#define WYE_H

#include <stddef.h>
#include <stdint.h>

/**
 * The version of the interface that this header describes: major << 16 | minor << 8 | patch. A program that was built with one
 * version works with every library of the same `WYE_ABI` that is not older: `wye_version_check`.
 */
#define WYE_API_VERSION 256

/**
 * The number in the library's soname, `libwye.so.0`. It is raised when a program that was linked before would not run correctly any more; the
 * dynamic linker keeps such programs apart.
 */
#define WYE_ABI 0

/**
 * Something that an operator should know: a refused flow, a port that went.
 */
#define WYE_LOG_WARN 1

/**
 * Something that should not happen: a panic was caught, a function was used against its contract.
 */
#define WYE_LOG_ERROR 0

/**
 * In `in_port`: the packet came in on no port.
 */
#define WYE_PORT_NONE UINT32_MAX

/**
 * A header that the packet lacks, or that was not looked for.
 */
#define WYE_NO_OFFSET UINT16_MAX

/**
 * In and out: `rss_hash` is a hash of the 5-tuple.
 */
#define WYE_PKT_RSS_VALID 1

/**
 * In and out: the receiver verified the checksums.
 */
#define WYE_PKT_CHECKSUM_GOOD 4

/**
 * Out: the descriptor and its buffer are the library's own (a copy, or a packet that had to move to a bigger buffer), valid until
 * the callback returns. `token` is NULL then.
 */
#define WYE_PKT_ENGINE 256

/**
 * Counters that `wye_counters.drops` has room for: reasons that later versions add find theirs there.
 */
#define WYE_DROPS_MAX 64

/**
 * Bytes of a flow's identifier.
 */
#define WYE_UFID_LEN 16

/**
 * Install the flow. `WYE_E_EXISTS` if there is one with this identifier, unless `WYE_PUT_MODIFY` is given as well.
 */
#define WYE_PUT_CREATE 1

/**
 * Change the actions of the flow with this identifier; key and mask of the call are ignored, statistics go on. `WYE_E_NOT_FOUND` if
 * there is none, unless `WYE_PUT_CREATE` is given as well.
 */
#define WYE_PUT_MODIFY 2

/**
 * With `WYE_PUT_CREATE`: `WYE_E_MATCHED` if a packet with exactly the key of the call would hit an installed flow. Test and installation
 * are one step.
 */
#define WYE_PUT_UNLESS_MATCHED 4

/**
 * With `WYE_PUT_MODIFY`: the statistics begin anew.
 */
#define WYE_PUT_ZERO_STATS 8

/**
 * No flow matched the packet.
 */
#define WYE_UPCALL_MISS 0

/**
 * A `userspace` action handed the packet up.
 */
#define WYE_UPCALL_ACTION 1

/**
 * `encap` cannot send the packet through its tunnel: `obstacle` says why. To be answered with actions, `encap` again once the way is known or
 * the packet shorter, or `WYE_VERDICT_DONE`, for who keeps a copy or sends the sender an error. Dropped, it counts as `unresolved` or `too_big`. Such upcalls
 * never go onto the ring.
 */
#define WYE_UPCALL_UNDELIVERABLE 2

/**
 * The tunnel's way is not known: no `header`, or `out_port` is `WYE_PORT_NONE`.
 */
#define WYE_OBSTACLE_UNRESOLVED 1

/**
 * The packet is longer than `inner_max`.
 */
#define WYE_OBSTACLE_TOO_BIG 2

/**
 * Drop the packet: `upcall_refused`. What an untouched answer says.
 */
#define WYE_VERDICT_DROP 0

/**
 * Carry out `actions` on the packet.
 */
#define WYE_VERDICT_EXECUTE 1

/**
 * Nothing more to do, the packet ends here: its fate is `WYE_FATE_UPCALL`.
 */
#define WYE_VERDICT_DONE 2

/**
 * In `wye_answer.flags`, on a miss: install a flow of the packet's key, `mask` and the actions, unless an installed flow matches by now.
 */
#define WYE_ANSWER_INSTALL 1

/**
 * The packet stays the caller's, whatever happens: `transmit` gets copies, `release` is not called, the changes that actions made are visible in it. Its
 * fate is `WYE_FATE_KEPT` or `WYE_FATE_DROPPED`. It does not move to another buffer: without headroom for a header that an action pushes it is dropped,
 * `no_headroom`.
 */
#define WYE_EXECUTE_KEEP 1

/**
 * Bands that a meter may have.
 */
#define WYE_METER_BANDS_MAX 8

/**
 * Rates in 1000 bit/s, bursts in 1000 bit.
 */
#define WYE_METER_KBPS 0

/**
 * Rates in packets/s, bursts in packets.
 */
#define WYE_METER_PPS 1

/**
 * Hash buckets of a bond.
 */
#define WYE_BOND_BUCKETS 256

/**
 * GRE (RFC 2784, RFC 2890). The kinds have the numbers of `OVS_VPORT_TYPE_*`.
 */
#define WYE_TUNNEL_GRE 3

/**
 * VXLAN (RFC 7348).
 */
#define WYE_TUNNEL_VXLAN 4

/**
 * Geneve (RFC 8926).
 */
#define WYE_TUNNEL_GENEVE 5

/**
 * ERSPAN, types II and III.
 */
#define WYE_TUNNEL_ERSPAN 107

/**
 * ERSPAN under the number that Open vSwitch has for it over IPv6; the same otherwise.
 */
#define WYE_TUNNEL_IP6ERSPAN 108

/**
 * GRE under the number that Open vSwitch has for it over IPv6; the same otherwise.
 */
#define WYE_TUNNEL_IP6GRE 109

/**
 * GTP-U (3GPP TS 29.281).
 */
#define WYE_TUNNEL_GTPU 110

/**
 * Segment routing over IPv6 (RFC 8754, RFC 8986).
 */
#define WYE_TUNNEL_SRV6 112

/**
 * VXLAN: packets may have the group-policy extension.
 */
#define WYE_TUNNEL_WITH_GBP 1

/**
 * VXLAN: packets may have the generic-protocol extension.
 */
#define WYE_TUNNEL_WITH_GPE 2

/**
 * Kinds in UDP: packets over IPv6 must have a UDP checksum.
 */
#define WYE_TUNNEL_WITH_CHECKSUM6 4

/**
 * Congestion marks go from the inner to the outer header and back, as RFC 6040 says. Without it, the outer header has the mark of `header`, and
 * what is opened stays as it is.
 */
#define WYE_TUNNEL_WITH_ECN 8

/**
 * SRv6: packets may lack a segment routing header, as those of H.Encaps.Red with one segment do.
 */
#define WYE_TUNNEL_WITH_REDUCED 16

/**
 * Geneve: packets with a critical option that is none of `known_options` are dropped, `tunnel_option`. Without it, the flows judge.
 */
#define WYE_TUNNEL_WITH_KNOWN_OPTIONS 32

/**
 * SRv6 with a `behaviour`: a packet for this node that carries something else than what the behaviour takes out comes out as it is (RFC 8986
 * §4.1.1). Without it such packets are dropped.
 */
#define WYE_TUNNEL_WITH_UPPER_LAYER 64

/**
 * The outer header's DSCP (of the TOS field, or traffic class) is the inner packet's.
 */
#define WYE_TUNNEL_INHERIT_DSCP 1

/**
 * The outer header's TTL or hop limit is the inner packet's.
 */
#define WYE_TUNNEL_INHERIT_TTL 2

/**
 * The outer IPv4 header has "don't fragment" if the inner IPv4 header has it, and around IPv6.
 */
#define WYE_TUNNEL_INHERIT_DF 4

/**
 * As in `header`. For SRv6 its flow label says which: 0 the inner packet's, 1 zero, 2 a hash, as in Open vSwitch.
 */
#define WYE_TUNNEL_LABEL_OF_HEADER 0

/**
 * The inner packet's flow label; 0 if that is not IPv6.
 */
#define WYE_TUNNEL_LABEL_OF_INNER 1

/**
 * A hash of the inner packet's flow (RFC 6438).
 */
#define WYE_TUNNEL_LABEL_OF_HASH 2

/**
 * Types of Geneve options that a tunnel may know.
 */
#define WYE_TUNNEL_OPTIONS_MAX 256

/**
 * Any metric, see `wye_gateway_route_del`.
 */
#define WYE_METRIC_ANY UINT32_MAX

/**
 * Addresses that one interface may have.
 */
#define WYE_ADDRESSES_MAX 1024

/**
 * Other ends are learned from their packets. Without it, packets of ends that were not added are dropped: `policy`.
 */
#define WYE_VPC_LEARN 1

/**
 * Questions for addresses (ARP, neighbour discovery) of stations that are known go to them as all others. Without it, they are answered here.
 */
#define WYE_VPC_NO_SUPPRESS 2

/**
 * Outer packets that are too long are split. Without it, the sender of the inner packet is told, or that is split if it is IPv4 and may be. Only inner
 * packets of IPv6 of up to 1280 bytes, and of IPv4 of up to 68, which every link carries, are sent in split outer ones in any case.
 */
#define WYE_VPC_FRAGMENT 4

/**
 * Outer packets over IPv4 have a UDP checksum.
 */
#define WYE_VPC_CHECKSUM 8

/**
 * Outer packets over IPv6 have no UDP checksum (RFC 6935).
 */
#define WYE_VPC_ZERO_CHECKSUM6 16

/**
 * What became of a packet.
 */
enum wye_fate
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint16_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing yet.
     */
    WYE_FATE_NONE = 0,
    /**
     * Sent: by `transmit` itself, or as a copy.
     */
    WYE_FATE_TRANSMITTED = 1,
    /**
     * It went up and ended there.
     */
    WYE_FATE_UPCALL = 2,
    /**
     * It waits for an asynchronous stage.
     */
    WYE_FATE_PARKED = 3,
    /**
     * Handed to the local stack.
     */
    WYE_FATE_DELIVERED = 4,
    /**
     * Dropped; `reason` says why.
     */
    WYE_FATE_DROPPED = 5,
    /**
     * `wye_worker_execute` with `WYE_EXECUTE_KEEP`: the actions are done and the packet is still there.
     */
    WYE_FATE_KEPT = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum wye_fate wye_fate;
#else
typedef uint16_t wye_fate;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a packet was dropped. The numbers never change; they index `wye_counters.drops`. Later versions may add some.
 */
enum wye_drop
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint16_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Shorter than an Ethernet header, or longer than its buffer allows.
     */
    WYE_DROP_RX_INVALID = 0,
    /**
     * The flow's action list is empty, or it ends without an output.
     */
    WYE_DROP_NO_OUTPUT = 1,
    /**
     * An explicit `drop` action.
     */
    WYE_DROP_EXPLICIT = 2,
    /**
     * No flow matched and no upcall handler is set.
     */
    WYE_DROP_MISS = 3,
    /**
     * The upcall handler answered "drop".
     */
    WYE_DROP_UPCALL_REFUSED = 4,
    /**
     * The upcall ring was full, or upcalls are disabled just now.
     */
    WYE_DROP_UPCALL_LOST = 5,
    /**
     * Output to a port that does not exist.
     */
    WYE_DROP_INVALID_PORT = 6,
    /**
     * Output to a port that exists but is down or has gone.
     */
    WYE_DROP_PORT_DOWN = 7,
    /**
     * The port's transmit queue took no more.
     */
    WYE_DROP_TX_FULL = 8,
    /**
     * The port cannot send a packet of this length.
     */
    WYE_DROP_TX_TOO_LONG = 9,
    /**
     * A meter's band was exceeded.
     */
    WYE_DROP_METER = 10,
    /**
     * More recirculations than the limit.
     */
    WYE_DROP_RECIRCULATION_LIMIT = 11,
    /**
     * `dec_ttl` of a packet whose TTL or hop limit is 1 or 0.
     */
    WYE_DROP_TTL_EXPIRED = 12,
    /**
     * An action needs a header that the packet lacks, or that is truncated.
     */
    WYE_DROP_ACTION_HEADER = 13,
    /**
     * No buffer was free for a copy.
     */
    WYE_DROP_NO_BUFFER = 14,
    /**
     * No headroom or tailroom is left for a header.
     */
    WYE_DROP_NO_HEADROOM = 15,
    /**
     * `lb_output` to a bond that does not exist or has no member.
     */
    WYE_DROP_INVALID_BOND = 16,
    /**
     * An action that this engine cannot carry out.
     */
    WYE_DROP_UNSUPPORTED_ACTION = 17,
    /**
     * The gateway's policy refused it (unknown VLAN on the port, link-local control frame).
     */
    WYE_DROP_POLICY = 18,
    /**
     * Ingress on a port where it may not be forwarded to any other port.
     */
    WYE_DROP_NO_DESTINATION = 19,
    /**
     * Broadcast, unknown-unicast or multicast flooding exceeded its limit.
     */
    WYE_DROP_STORM = 20,
    /**
     * The engine shuts down or was poisoned by a caught panic.
     */
    WYE_DROP_SHUTDOWN = 21,
    /**
     * A tunnel packet whose outer or tunnel header is cut off, contradicts itself, or has a version or flags that are not in use.
     */
    WYE_DROP_TUNNEL_HEADER = 22,
    /**
     * A tunnel packet whose outer checksum is wrong, or missing where it must not be.
     */
    WYE_DROP_TUNNEL_CHECKSUM = 23,
    /**
     * A fragment of a tunnel packet: it would have to be reassembled first.
     */
    WYE_DROP_TUNNEL_FRAGMENT = 24,
    /**
     * A tunnel packet with an option or extension header that must be understood and is not.
     */
    WYE_DROP_TUNNEL_OPTION = 25,
    /**
     * A tunnel packet marked "congestion experienced" around one whose transport cannot be told.
     */
    WYE_DROP_TUNNEL_ECN = 26,
    /**
     * `tnl_pop` or `encap` with a tunnel that does not exist.
     */
    WYE_DROP_UNKNOWN_TUNNEL = 27,
    /**
     * `encap` into a tunnel whose way is not known.
     */
    WYE_DROP_UNRESOLVED = 28,
    /**
     * `encap` of a packet that is too long for the tunnel's way.
     */
    WYE_DROP_TOO_BIG = 29,
    /**
     * A tunnel packet whose network identifier is no VPC's here.
     */
    WYE_DROP_UNKNOWN_VNI = 30,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum wye_drop wye_drop;
#else
typedef uint16_t wye_drop;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * One switch: ports, flows, meters, bonds, upcalls. Several in one process know nothing of each other.
 */
typedef struct wye_datapath wye_datapath;

/**
 * Why a call failed, in words. Functions that take a `wye_error **` write one there when they fail and the pointer is not NULL;
 * the caller frees it. A success writes nothing.
 */
typedef struct wye_error wye_error;

/**
 * A walk over all flows. A flow that is there during the whole walk is returned exactly once, one that comes or goes meanwhile at most
 * once. Several threads may share one walk: each call takes the next flows for itself.
 */
typedef struct wye_flow_dump wye_flow_dump;

/**
 * Answers the upcalls of a datapath's ports that were made its own: interfaces with addresses, ports of VLANs, members of VPCs. Packets of all other
 * ports, and all that `userspace` hands up, are the program's as without it.
 */
typedef struct wye_gateway wye_gateway;

/**
 * An upcall that was taken off the ring. It holds a buffer of the datapath's pool until it is answered or freed.
 */
typedef struct wye_queued_upcall wye_queued_upcall;

/**
 * A reading of statistics: names and values.
 */
typedef struct wye_stats wye_stats;

/**
 * Carries packets. May move between threads, but one thread at a time uses it; a second one is answered `WYE_E_BUSY`. Between calls it
 * holds nothing: an idle worker delays nobody.
 */
typedef struct wye_worker wye_worker;

/**
 * What a function answers: `WYE_OK`, or one of the negative `WYE_E_*`. The numbers never change; later versions may add some.
 */
typedef int32_t wye_status;

/**
 * Takes a line of the log: one of `WYE_LOG_*`, and text without a line end that is valid during the call. May be called from every
 * thread that calls the library, several at a time, also while the library holds locks: it must not call the library.
 */
typedef void (*wye_log_fn)(void *ctx, uint32_t level, const char *message);

/**
 * Gives `size` bytes at a multiple of `align`, or NULL if there are none. What is in them does not matter: the library clears them, and so
 * touches them all.
 *
 * Called in `wye_datapath_new` and `wye_worker_new`, on the thread that calls these, never while packets are carried. Must not call the library.
 */
typedef void *(*wye_alloc_fn)(void *ctx, size_t size, size_t align);

/**
 * Takes back what `wye_alloc_fn` gave, with the same `size` and `align`.
 *
 * Called when the last object that uses the memory is freed, on the thread that does that. Must not call the library.
 */
typedef void (*wye_dealloc_fn)(void *ctx, void *at, size_t size, size_t align);

/**
 * Settings of a datapath. Zero is each field's default.
 */
typedef struct wye_datapath_config {
    /**
     * `sizeof(struct wye_datapath_config)`.
     */
    uint32_t size;
    /**
     * Flows at a time. Default 1,048,576.
     */
    uint32_t flows_max;
    /**
     * Entries of each worker's exact-match cache; `UINT32_MAX` for no cache. Default 65,536.
     */
    uint32_t cache_entries;
    /**
     * Buffers for copies, queued upcalls and packets that engine-owned ports receive, 16,777,216 at most. Default 8,192.
     */
    uint32_t pool_buffers;
    /**
     * Bytes of one such buffer, headroom included. Default 2,304. A longer packet cannot be copied, which drops the copy: `no_buffer`, nor
     * move for want of headroom: `no_headroom`.
     */
    uint32_t buffer_len;
    /**
     * Bytes that are kept free before a packet in such a buffer. Default 256.
     */
    uint32_t headroom;
    /**
     * Upcalls that may wait on the ring. Default 1,024.
     */
    uint32_t upcalls_max;
    /**
     * VLAN tags that a flow key takes in, 1 or 2. Default 2.
     */
    uint32_t vlan_limit;
    /**
     * Seed of hashes and of `sample`; 0 draws one.
     */
    uint64_t seed;
    /**
     * Takes log lines; NULL for none.
     */
    wye_log_fn log;
    /**
     * Handed to `log`.
     */
    void *log_ctx;
    /**
     * Where the large memory comes from, all of it that grows with a setting of this struct: packet buffers, the flow table and each worker's
     * flow statistics (`flows_max`), exact-match caches (`cache_entries`). Each is one piece, rounded up to 2 MiB unless it is small. NULL: from
     * the kernel, which gives pages when they are first used. Handles, hash tables of masks and ports, and attributes come from `malloc`.
     */
    wye_alloc_fn alloc;
    /**
     * Takes it back; given exactly if `alloc` is.
     */
    wye_dealloc_fn dealloc;
    /**
     * Handed to `alloc` and `dealloc`.
     */
    void *alloc_ctx;
} wye_datapath_config;

/**
 * What a flow has counted. The layout is fixed for ever.
 */
typedef struct wye_flow_stats {
    /**
     * Packets that matched. A packet that recirculates counts once in each flow.
     */
    uint64_t packets;
    /**
     * Their bytes when they were looked up, Ethernet header and padding included.
     */
    uint64_t bytes;
    /**
     * The `now_ns` of the last one; 0 if there was none.
     */
    uint64_t used_ns;
    /**
     * All TCP flags seen, in host byte order.
     */
    uint16_t tcp_flags;
    /**
     * Zero.
     */
    uint16_t reserved[3];
} wye_flow_stats;

/**
 * Told of each flow whose time was over: its identifier and final statistics. May call the library.
 */
typedef void (*wye_expired_fn)(void *ctx, const uint8_t *ufid, const struct wye_flow_stats *stats);

/**
 * A port to be added.
 */
typedef struct wye_port_config {
    /**
     * `sizeof(struct wye_port_config)`.
     */
    uint32_t size;
    /**
     * Its number, below 65,536.
     */
    uint32_t number;
    /**
     * Its name; NULL for `"portN"`. Copied.
     */
    const char *name;
    /**
     * The longest frame that it sends, Ethernet header included; 0 for no limit. A longer one is dropped: `tx_too_long`.
     */
    uint32_t packet_len_max;
    /**
     * Not 0: the port starts down, see `wye_port_set_up`.
     */
    uint32_t down;
} wye_port_config;

/**
 * A request to install or change a flow. Attributes are copied before the function returns.
 */
typedef struct wye_flow_request {
    /**
     * `sizeof(struct wye_flow_request)`.
     */
    uint32_t size;
    /**
     * `WYE_PUT_*`, at least `WYE_PUT_CREATE` or `WYE_PUT_MODIFY`.
     */
    uint32_t flags;
    /**
     * Identifier, the caller's choice. All zero: the library makes one of key and mask.
     */
    uint8_t ufid[WYE_UFID_LEN];
    /**
     * Key. Bits that the mask does not have do not matter, but are kept for who reads the flow.
     */
    const void *key;
    /**
     * Mask; NULL with length 0 to match every field of the key.
     */
    const void *mask;
    /**
     * Actions; none drops the packets.
     */
    const void *actions;
    /**
     * Bytes of `key`.
     */
    uint32_t key_len;
    /**
     * Bytes of `mask`.
     */
    uint32_t mask_len;
    /**
     * Bytes of `actions`.
     */
    uint32_t actions_len;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The flow goes after this many ns without a packet; 0 = never. See `wye_datapath_upkeep`.
     */
    uint64_t idle_timeout_ns;
    /**
     * The flow goes this many ns after `now_ns`; 0 = never.
     */
    uint64_t hard_timeout_ns;
    /**
     * The time, where a timeout is given.
     */
    uint64_t now_ns;
    /**
     * Instead of `key` and `mask`: what is matched, as `ovs-dpctl` writes it, `"in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.0/8)"`. NULL: see
     * `key`. Ports may be given by name.
     */
    const char *match_text;
    /**
     * Instead of `actions`: `"push_vlan(vid=5,pcp=0),2"`; `"drop"`. NULL: see `actions`.
     */
    const char *actions_text;
} wye_flow_request;

/**
 * A flow as it is read. The layout is fixed for ever. The pointers are into the caller's own buffer.
 */
typedef struct wye_flow {
    /**
     * Identifier.
     */
    uint8_t ufid[WYE_UFID_LEN];
    /**
     * The key, byte for byte as it was given.
     */
    const void *key;
    /**
     * The mask, likewise.
     */
    const void *mask;
    /**
     * The actions, likewise.
     */
    const void *actions;
    /**
     * Bytes of `key`.
     */
    uint32_t key_len;
    /**
     * Bytes of `mask`.
     */
    uint32_t mask_len;
    /**
     * Bytes of `actions`.
     */
    uint32_t actions_len;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Statistics so far.
     */
    struct wye_flow_stats stats;
} wye_flow;

/**
 * One packet: a descriptor of a buffer, and what is known about the packet beside its bytes. Clear it (`memset`), then set at least
 * `buffer`, `capacity`, `data_ofs`, `len` and `in_port`.
 *
 * Whoever holds the descriptor holds the bytes. The library changes them where actions say so, moves `data_ofs` and `len` when headers
 * come and go, and never moves the payload. The layout is fixed for ever.
 */
typedef struct wye_packet {
    /**
     * First byte of the buffer.
     */
    uint8_t *buffer;
    /**
     * The caller's; the library only carries it. NULL in the library's own packets.
     */
    void *token;
    /**
     * Bytes in the buffer.
     */
    uint32_t capacity;
    /**
     * Where the frame begins = headroom.
     */
    uint32_t data_ofs;
    /**
     * Bytes of the frame, without FCS, with padding. At most 65,535.
     */
    uint32_t len;
    /**
     * Port of ingress, `WYE_PORT_NONE` for none.
     */
    uint32_t in_port;
    /**
     * What the bytes begin with: 0 = Ethernet; 1 << 16 | EtherType = that header, as in OpenFlow.
     */
    uint32_t packet_type;
    /**
     * Recirculation id, 0 for a packet that was just received.
     */
    uint32_t recirc_id;
    /**
     * Result of the last `hash` action.
     */
    uint32_t dp_hash;
    /**
     * Hash of the 5-tuple, if `flags` says so.
     */
    uint32_t rss_hash;
    /**
     * Packet mark.
     */
    uint32_t skb_mark;
    /**
     * QoS priority (`skb_priority` of a key).
     */
    uint32_t skb_priority;
    /**
     * `WYE_PKT_*`; others must be clear.
     */
    uint32_t flags;
    /**
     * Connection mark.
     */
    uint32_t ct_mark;
    /**
     * Connection tracking zone.
     */
    uint16_t ct_zone;
    /**
     * Connection tracking state, `OVS_CS_F_*`; 0 for an untracked packet.
     */
    uint8_t ct_state;
    /**
     * Zero.
     */
    uint8_t reserved;
    /**
     * Out: the outermost MPLS label stack entry, from `data_ofs` on; `WYE_NO_OFFSET` for none.
     */
    uint16_t l2_5_ofs;
    /**
     * Out: the network header, likewise.
     */
    uint16_t l3_ofs;
    /**
     * Out: the transport header, likewise.
     */
    uint16_t l4_ofs;
    /**
     * Out: `enum wye_fate`.
     */
    uint16_t fate;
    /**
     * Out: `enum wye_drop`, if `fate` is `WYE_FATE_DROPPED`.
     */
    uint16_t reason;
    /**
     * Zero.
     */
    uint16_t reserved2;
    /**
     * Connection label, in the byte order of `OVS_KEY_ATTR_CT_LABELS`.
     */
    uint8_t ct_label[16];
    /**
     * Zero: room for later versions.
     */
    uint64_t reserved3[4];
} wye_packet;

/**
 * An upcall. Everything in it is valid until the callback returns (or the queued upcall is freed).
 */
typedef struct wye_upcall {
    /**
     * `WYE_UPCALL_*`. Later versions may add some, for who uses what they are for; the answer to an unknown one is to leave the answer alone.
     */
    uint32_t kind;
    /**
     * Bytes of `key`.
     */
    uint32_t key_len;
    /**
     * Bytes of `action`.
     */
    uint32_t action_len;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The packet as it is now. The frame's bytes may be changed, and so may, in a descriptor of the caller's, whatever is set when a packet
     * is handed in.
     */
    struct wye_packet *packet;
    /**
     * The packet's key, as attributes.
     */
    const void *key;
    /**
     * The `OVS_ACTION_ATTR_USERSPACE` attribute that handed the packet up; NULL for other kinds.
     */
    const void *action;
    /**
     * The `now_ns` of the burst.
     */
    uint64_t now_ns;
    /**
     * `WYE_UPCALL_UNDELIVERABLE`: the tunnel's number.
     */
    uint32_t tunnel;
    /**
     * `WYE_UPCALL_UNDELIVERABLE`: `WYE_OBSTACLE_*`; else 0.
     */
    uint32_t obstacle;
    /**
     * `WYE_OBSTACLE_TOO_BIG`: bytes of the longest packet that gets through, Ethernet header included.
     */
    uint32_t inner_max;
    /**
     * `WYE_UPCALL_UNDELIVERABLE`: 1 if `encap` was told an identifier, `tun_id`; else 0.
     */
    uint32_t has_tun_id;
    /**
     * That identifier.
     */
    uint32_t tun_id;
    /**
     * Zero: room for later versions.
     */
    uint32_t reserved2[3];
} wye_upcall;

/**
 * Sends packets to a port: takes them from the front of the list and returns how many; those behind are dropped (`tx_full`). A packet that was
 * taken is the callee's: if it is the caller's own (no `WYE_PKT_ENGINE`), its descriptor is the very one that was handed in, and the
 * library never touches it or its buffer again. A packet of the library's (`WYE_PKT_ENGINE`) is valid during the call: copy its bytes.
 *
 * Called on the worker's thread while the engine is inside a burst: it must not use this worker (`WYE_E_BUSY`); everything else is legal.
 */
typedef size_t (*wye_transmit_fn)(void *ctx, uint32_t port, struct wye_packet **packets, size_t n);

/**
 * Gives packets of the caller's back that were not transmitted: dropped, consumed by an upcall, or sent as a copy. Their `fate` says
 * what became of them.
 *
 * Called on the worker's thread, outside of the engine: everything is legal, also `wye_worker_execute` on this worker.
 */
typedef void (*wye_release_fn)(void *ctx, struct wye_packet **packets, size_t n);

/**
 * What is to be done about an upcall. All zero when the callback gets it, which means: drop the packet. What it points to must stay valid until the
 * next callback of this worker, or until the call that made the upcall returns, whichever is first.
 */
typedef struct wye_answer {
    /**
     * `WYE_VERDICT_*`.
     */
    uint32_t verdict;
    /**
     * `WYE_ANSWER_*`.
     */
    uint32_t flags;
    /**
     * Actions for the packet, and for the flow unless `flow_actions` is given.
     */
    const void *actions;
    /**
     * The flow's actions where they differ from the packet's; NULL else.
     */
    const void *flow_actions;
    /**
     * Which of the key's fields the flow matches; NULL with length 0 for all of them.
     */
    const void *mask;
    /**
     * Bytes of `actions`.
     */
    uint32_t actions_len;
    /**
     * Bytes of `flow_actions`.
     */
    uint32_t flow_actions_len;
    /**
     * Bytes of `mask`.
     */
    uint32_t mask_len;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The flow's identifier; all zero: the library makes one.
     */
    uint8_t ufid[WYE_UFID_LEN];
    /**
     * The flow goes after this many ns without a packet; 0 = never.
     */
    uint64_t idle_timeout_ns;
    /**
     * The flow goes this many ns after the burst's `now_ns`; 0 = never.
     */
    uint64_t hard_timeout_ns;
    /**
     * Actions as text, instead of `actions`; NUL-terminated or NULL.
     */
    const char *actions_text;
    /**
     * What the flow matches as text, instead of `mask`: `"in_port(1),eth_type(0x0800)"`; NUL-terminated or NULL. The packet must match it.
     */
    const char *match_text;
    /**
     * Zero: room for later versions.
     */
    uint64_t reserved2[2];
} wye_answer;

/**
 * Answers an upcall: fills `answer`, or leaves it alone to drop the packet. May install flows itself.
 *
 * Called on the worker's thread, outside of the engine: everything is legal, also `wye_worker_execute` on this worker (its own upcalls wait
 * until this one is answered), but not with the packet of this upcall. A packet that comes up again after its ninth answer is dropped:
 * `recirculation_limit`.
 */
typedef void (*wye_upcall_fn)(void *ctx, const struct wye_upcall *upcall, struct wye_answer *answer);

/**
 * A worker's callbacks.
 */
typedef struct wye_worker_ops {
    /**
     * `sizeof(struct wye_worker_ops)`.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Sends packets. NULL: every output is a drop (`port_down`).
     */
    wye_transmit_fn transmit;
    /**
     * Takes packets back. NULL: the caller looks at `fate` when the call returns; whatever `transmit` did not take is its own.
     */
    wye_release_fn release;
    /**
     * Answers upcalls. NULL: they go onto the datapath's ring, see `wye_upcall_pop`.
     */
    wye_upcall_fn upcall;
} wye_worker_ops;

/**
 * One band: what exceeds it is dropped.
 */
typedef struct wye_meter_band {
    /**
     * Rate, in the meter's unit.
     */
    uint32_t rate;
    /**
     * Size of the bucket, in the meter's unit; 0 = one second's worth.
     */
    uint32_t burst;
} wye_meter_band;

/**
 * What a meter is to do.
 */
typedef struct wye_meter_config {
    /**
     * `sizeof(struct wye_meter_config)`.
     */
    uint32_t size;
    /**
     * `WYE_METER_KBPS` or `WYE_METER_PPS`.
     */
    uint32_t unit;
    /**
     * Bands in use.
     */
    uint32_t n_bands;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The bands.
     */
    struct wye_meter_band bands[WYE_METER_BANDS_MAX];
} wye_meter_config;

/**
 * Packets and bytes.
 */
typedef struct wye_meter_count {
    /**
     * Packets.
     */
    uint64_t packets;
    /**
     * Bytes.
     */
    uint64_t bytes;
} wye_meter_count;

/**
 * What a meter has counted. The layout is fixed for ever.
 */
typedef struct wye_meter_stats {
    /**
     * Everything that came in.
     */
    struct wye_meter_count input;
    /**
     * What each band dropped.
     */
    struct wye_meter_count bands[WYE_METER_BANDS_MAX];
    /**
     * Bands in use.
     */
    uint32_t n_bands;
    /**
     * Zero.
     */
    uint32_t reserved;
} wye_meter_stats;

/**
 * A type of Geneve options.
 */
typedef struct wye_tunnel_option {
    /**
     * Class.
     */
    uint16_t option_class;
    /**
     * Type, critical bit included.
     */
    uint8_t option_type;
    /**
     * Zero.
     */
    uint8_t reserved;
} wye_tunnel_option;

/**
 * A tunnel. Zero is each field's default but `kind`'s: a tunnel that is only opened.
 */
typedef struct wye_tunnel_config {
    /**
     * `sizeof(struct wye_tunnel_config)`.
     */
    uint32_t size;
    /**
     * `WYE_TUNNEL_GRE` to `WYE_TUNNEL_SRV6`.
     */
    uint32_t kind;
    /**
     * `WYE_TUNNEL_WITH_*`.
     */
    uint32_t flags;
    /**
     * Elements of `known_options`, 256 at most.
     */
    uint32_t n_known_options;
    /**
     * With `WYE_TUNNEL_WITH_KNOWN_OPTIONS`: what is understood. Copied.
     */
    const struct wye_tunnel_option *known_options;
    /**
     * What `encap` puts in front: Ethernet, up to two VLAN tags, IPv4 or IPv6, UDP or what else carries the kind, and the kind's own header, 512 bytes
     * at most, as in `tnl_push`. Lengths, checksums, source port and sequence numbers are filled in for each packet; a UDP checksum only if the one
     * that stands here is not 0. Copied.
     */
    const void *header;
    /**
     * Bytes of `header`; 0 if the way is not known yet.
     */
    uint32_t header_len;
    /**
     * The port that `encap` sends to; `WYE_PORT_NONE` if the way is not known yet. Without `header` it may be 0 as well.
     */
    uint32_t out_port;
    /**
     * The longest outer IP packet that gets through, in bytes; 0 for no limit.
     */
    uint32_t mtu;
    /**
     * First UDP source port, chosen by a hash of the inner packet's flow. Both 0: 32,768 to 60,999.
     */
    uint16_t source_port_first;
    /**
     * Last UDP source port.
     */
    uint16_t source_port_last;
    /**
     * `WYE_TUNNEL_INHERIT_*`.
     */
    uint32_t inherit;
    /**
     * `WYE_TUNNEL_LABEL_*`; without meaning over IPv4.
     */
    uint32_t flow_label;
    /**
     * SRv6: what `tnl_pop` does, by its number in IANA's registry "SRv6 Endpoint Behaviors": End is 1, End.DX2 21, End.DT46 20, for instance. 0: as Open
     * vSwitch, the inner packet comes out if no segment is left.
     */
    uint32_t behaviour;
    /**
     * Zero.
     */
    uint32_t reserved;
} wye_tunnel_config;

/**
 * Settings of a gateway. Zero is each field's default.
 */
typedef struct wye_gateway_config {
    /**
     * `sizeof(struct wye_gateway_config)`.
     */
    uint32_t size;
    /**
     * Stations known at a time, of all VLANs and VPCs; frames for others are flooded. Of half of them each VPC, and the VLANs together, have an even
     * share for themselves. Default 65,536.
     */
    uint32_t stations_max;
    /**
     * Stations known at a time on one port, or behind one other end of a tunnel, of the VLANs and of each VPC. Default 16,384.
     */
    uint32_t stations_per_port_max;
    /**
     * Frames per second that may be flooded from one port or other end, those of each VPC apart; more are dropped: `storm`. `UINT32_MAX` for no
     * limit. Default 10,000.
     */
    uint32_t flood_rate;
    /**
     * Frames that may be flooded at once after a pause. Default 1,000.
     */
    uint32_t flood_burst;
    /**
     * Neighbours known at a time. Default 16,384.
     */
    uint32_t neighbours_max;
    /**
     * Packets that wait for one neighbour's answer; the oldest gives way. Default 16.
     */
    uint32_t waiting_max;
    /**
     * Bytes of packets that wait for all neighbours. Default 4,194,304.
     */
    uint32_t waiting_bytes_max;
    /**
     * A station is forgotten after this many ns without a packet. Default 300 s.
     */
    uint64_t aging_ns;
    /**
     * The flows of stations go after this many ns without a packet. Default 10 s.
     */
    uint64_t flow_idle_ns;
} wye_gateway_config;

/**
 * An IP address, with the length of its prefix where it has one. All zero: none.
 */
typedef struct wye_address {
    /**
     * 4 or 6; 0 for no address.
     */
    uint8_t version;
    /**
     * Bits of the prefix. Not looked at where an address stands alone.
     */
    uint8_t prefix_len;
    /**
     * Zero.
     */
    uint8_t reserved[2];
    /**
     * The address in network byte order. IPv4 has the first four, and zeros behind them.
     */
    uint8_t bytes[16];
} wye_address;

/**
 * A port with addresses of our own. Zero is each field's default but `port`'s, `mac`'s and those of the addresses.
 */
typedef struct wye_interface {
    /**
     * `sizeof(struct wye_interface)`.
     */
    uint32_t size;
    /**
     * The datapath's port.
     */
    uint32_t port;
    /**
     * Our link-layer address there.
     */
    uint8_t mac[6];
    /**
     * Frames have a tag of this VLAN; 0 for none.
     */
    uint16_t vlan;
    /**
     * The longest IP packet that the link carries, in bytes. Default 1,500.
     */
    uint32_t mtu;
    /**
     * Elements of `addresses`.
     */
    uint32_t n_addresses;
    /**
     * Our addresses, with the length of the prefix that is on the link. Copied.
     */
    const struct wye_address *addresses;
} wye_interface;

/**
 * A way to a prefix.
 */
typedef struct wye_route {
    /**
     * `sizeof(struct wye_route)`.
     */
    uint32_t size;
    /**
     * The interface that it leaves by.
     */
    uint32_t port;
    /**
     * Where it leads; `prefix_len` counts.
     */
    struct wye_address prefix;
    /**
     * The next hop; none if the prefix is on the link.
     */
    struct wye_address via;
    /**
     * Which of our addresses packets have that choose none; may be none.
     */
    struct wye_address source;
    /**
     * Of several routes for a prefix, the one with the lowest counts.
     */
    uint32_t metric;
    /**
     * The table; 0 for the main one, 254.
     */
    uint32_t table;
} wye_route;

/**
 * A VPC. Zero is each field's default but `vni`'s and `listener`'s.
 */
typedef struct wye_vpc_config {
    /**
     * `sizeof(struct wye_vpc_config)`.
     */
    uint32_t size;
    /**
     * Its identifier, 24 bits; no other VPC of the gateway has it.
     */
    uint32_t vni;
    /**
     * Where its packets come in: what `wye_gateway_listen` wrote. They leave in tunnels of the same kind, to the same UDP port.
     */
    uint32_t listener;
    /**
     * `WYE_VPC_*`.
     */
    uint32_t flags;
    /**
     * What of the outer header the inner packet decides: `WYE_TUNNEL_INHERIT_*`. Congestion marks are carried along in any case.
     */
    uint32_t inherit;
    /**
     * Our address in outer packets; none for the route's, or else the interface's.
     */
    struct wye_address local;
    /**
     * The routing table that is asked before the main one; 0 for none.
     */
    uint32_t table;
    /**
     * Other ends at most. Default 1,024.
     */
    uint32_t remotes_max;
    /**
     * Addresses of stations that are known for answers at most. Default 16,384.
     */
    uint32_t bindings_max;
    /**
     * TTL or hop limit of outer packets. Default 64.
     */
    uint8_t ttl;
    /**
     * Differentiated services code point of outer packets, 6 bits.
     */
    uint8_t dscp;
    /**
     * Zero.
     */
    uint8_t reserved[2];
    /**
     * Stations known of it at a time; frames for others are flooded. Default 16,384.
     */
    uint32_t stations_max;
    /**
     * Flows installed for it at a time; beyond that its packets are looked at one by one. Default 65,536.
     */
    uint32_t flows_max;
} wye_vpc_config;

/**
 * What one worker has counted, for who reads it after every burst. The layout is fixed for ever.
 */
typedef struct wye_counters {
    /**
     * Lookups that found a flow, those of recirculated packets included.
     */
    uint64_t hits;
    /**
     * Of those, in the exact-match cache.
     */
    uint64_t cache_hits;
    /**
     * Lookups that found none.
     */
    uint64_t misses;
    /**
     * Recirculations.
     */
    uint64_t recirculated;
    /**
     * Sum of `drops`: one comparison tells that nothing was dropped.
     */
    uint64_t drops_total;
    /**
     * By `enum wye_drop`: packets, and copies that actions made.
     */
    uint64_t drops[WYE_DROPS_MAX];
} wye_counters;

/**
 * It worked.
 */
#define WYE_OK 0

/**
 * An argument is wrong: NULL, out of range, malformed attributes, a struct of an impossible size, a handle that is none.
 */
#define WYE_E_INVALID -1

/**
 * It is there already.
 */
#define WYE_E_EXISTS -2

/**
 * It is not there.
 */
#define WYE_E_NOT_FOUND -3

/**
 * `WYE_PUT_UNLESS_MATCHED`: an installed flow matches the key already.
 */
#define WYE_E_MATCHED -4

/**
 * Well formed, but this library cannot do it: an action or a key field that it lacks, a field of a newer header.
 */
#define WYE_E_UNSUPPORTED -5

/**
 * The caller's buffer is too small; the length that is needed has been written.
 */
#define WYE_E_NO_SPACE -6

/**
 * Not enough memory.
 */
#define WYE_E_NO_MEMORY -7

/**
 * A number is beyond what the object can have (a meter's id).
 */
#define WYE_E_RANGE -8

/**
 * The library or a callback panicked, now or earlier. The datapath is poisoned: it carries no packet and changes no flow any more, but
 * flows, statistics and queued upcalls can be read, and everything can be freed.
 */
#define WYE_E_PANIC -9

/**
 * The object is in use: a worker by another thread, or by the call whose callback this is.
 */
#define WYE_E_BUSY -10

/**
 * The handle was made by a process of which this one is a fork.
 */
#define WYE_E_FORKED -11

/**
 * A limit is reached: flows, masks, ports, workers.
 */
#define WYE_E_FULL -12

/**
 * The system refused; the detail says what is missing.
 */
#define WYE_E_IO -13

/**
 * The time was over before it was done.
 */
#define WYE_E_TIMED_OUT -14

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's version, `"0.1.0"`. The string is static.
 *
 * Any thread; does not block. Since 0.1.
 */
const char *wye_version(void);

/**
 * The `WYE_API_VERSION` of the library that is running, to compare with the header's.
 *
 * Any thread; does not block. Since 0.1.
 */
uint32_t wye_api_version(void);

/**
 * Whether the library that is running serves a program that was built with this header: call it with `WYE_API_VERSION`. A library that is
 * older than the header may lack what the program was built to use: `WYE_E_UNSUPPORTED`.
 *
 * Any thread; does not block. Since 0.1.
 */
wye_status wye_version_check(uint32_t header_version,
                             struct wye_error **error);

/**
 * The name of a status: `"ok"`, `"invalid"`, … ; `"unknown"` for a number that is none.
 *
 * The string is static. Any thread; does not block. Since 0.1.
 */
const char *wye_status_name(wye_status status);

/**
 * The `errno` value (positive) that comes nearest to a status: 0 for `WYE_OK`, `EINVAL` for a number that is none.
 *
 * Any thread; does not block. Since 0.1.
 */
int wye_status_to_errno(wye_status status);

/**
 * The detail in words: one line, without a full stop. Valid until the error is freed; `""` for NULL.
 *
 * Any thread; does not block. Since 0.1.
 */
const char *wye_error_message(const struct wye_error *error);

/**
 * The status that came with the error; `WYE_OK` for NULL.
 *
 * Any thread; does not block. Since 0.1.
 */
wye_status wye_error_status(const struct wye_error *error);

/**
 * Frees an error; NULL is legal.
 *
 * Any thread; does not block. Since 0.1.
 *
 * Precondition:
 * `error` is NULL or came from this library and was not freed.
 */
void wye_error_free(struct wye_error *error);

/**
 * Makes a datapath without ports, flows or workers. `config` may be NULL for defaults; it is copied.
 *
 * Any thread. Maps memory; does not block otherwise. `WYE_E_INVALID` names the setting that is out of range, `WYE_E_NO_MEMORY`.
 * Since 0.1.
 *
 * Precondition:
 * `config` is NULL or points to a struct of the size that its first field says.
 */
wye_status wye_datapath_new(const struct wye_datapath_config *config,
                            struct wye_datapath **datapath,
                            struct wye_error **error);

/**
 * Frees a datapath; NULL is legal. Takes the handle. Workers, dumps and queued upcalls that still exist stay usable and keep what they
 * need; the rest of the memory goes with the last of them.
 *
 * Any thread, not while another thread is inside a function with this handle. Does not block. Since 0.1.
 *
 * Precondition:
 * `datapath` is NULL or came from `wye_datapath_new` and was not freed.
 */
void wye_datapath_free(struct wye_datapath *datapath);

/**
 * Turns upcalls off (0) or on. While off, packets that need one are dropped: `upcall_lost`. An upcall that is being answered when they are
 * turned off may still run when this returns: `wye_datapath_quiesce` waits for it.
 *
 * Any thread, also from a callback. Does not block. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_datapath_set_upcalls(const struct wye_datapath *datapath,
                                    uint32_t enabled,
                                    struct wye_error **error);

/**
 * Waits until every burst, and every upcall callback, that had begun before this call has ended: from then on all workers see every
 * change that was made before the call. Workers need not do anything for it, idle ones do not delay it.
 *
 * Any thread, but not from a callback of a worker (`WYE_E_BUSY`). Blocks for `timeout_ns` at most, then `WYE_E_TIMED_OUT`. `WYE_E_INVALID`,
 * `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_datapath_quiesce(const struct wye_datapath *datapath,
                                uint64_t timeout_ns,
                                struct wye_error **error);

/**
 * The work that packets do not do: removes flows whose idle or hard time is over (looking at `budget` flows at most, 0 for all), sorts
 * subtables by hits, frees what no worker can see any more. Call it about every second. `expired` may be NULL.
 *
 * Any thread. Takes the control lock, never waits for a worker. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `expired` is NULL or may be called with `ctx`.
 */
wye_status wye_datapath_upkeep(const struct wye_datapath *datapath,
                               uint64_t now_ns,
                               uint32_t budget,
                               wye_expired_fn expired,
                               void *ctx,
                               struct wye_error **error);

/**
 * Adds a port of the caller's: packets that flows output there go to the `transmit` callback of the worker that carries them. Output to a
 * number that was not added is a drop: `invalid_port`. Packets may come in on any number.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` (number or name), `WYE_E_RANGE`, `WYE_E_FULL`, `WYE_E_INVALID`,
 * `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `config` is NULL or a struct of the size that its first field says, its name NULL or a NUL-terminated string.
 */
wye_status wye_port_add(const struct wye_datapath *datapath,
                        const struct wye_port_config *config,
                        struct wye_error **error);

/**
 * Opens a port that the library drives and adds it: `kind` is `"tap"`, `"af_packet"`, `"af_xdp"` or `"pcap"`, `options` is NULL or a list,
 * `"interface=eth0,promiscuous=false"`. `worker` receives from it in `wye_worker_poll` and sends to it; `config` as in `wye_port_add`.
 *
 * | kind | options |
 * |---|---|
 * | `tap` | `interface` (default: the port's name), `mtu`, `up` |
 * | `af_packet` | `interface`, `promiscuous`, `up`, `ring_bytes` |
 * | `af_xdp` | `interface`, `promiscuous`, `up`, `frames`, `copying` (`auto`, `copy`, `zero_copy`), `attach` (`auto`, `native`, `generic`) |
 * | `pcap` | `read` (a trace to play), `looped`, `write` (a trace to record) |
 *
 * The port has one queue, and one worker drives it: for other workers it is a port of the caller's, sent to by `transmit`. When the interface vanishes
 * the port is down, and it comes back with the interface.
 *
 * The thread that owns `worker`, not from its callbacks. Makes system calls. `WYE_E_IO`: the detail says what is missing (a capability, the
 * interface, a kernel feature); `WYE_E_INVALID`: it names the option; `WYE_E_BUSY` and all of `wye_port_add`. Nothing stays behind then.
 * Since 0.1.
 *
 * Precondition:
 * As `wye_port_add`; `kind` and `options` are NULL or NUL-terminated strings.
 */
wye_status wye_port_open(const struct wye_worker *worker,
                         const struct wye_port_config *config,
                         const char *kind,
                         const char *options,
                         struct wye_error **error);

/**
 * Closes a port that `wye_port_open` opened for this worker, and removes it.
 *
 * The thread that owns `worker`, not from its callbacks. Makes system calls. `WYE_E_NOT_FOUND`, `WYE_E_BUSY`, `WYE_E_INVALID`, `WYE_E_FORKED`.
 * Since 0.1.
 */
wye_status wye_port_close(const struct wye_worker *worker,
                          uint32_t number,
                          struct wye_error **error);

/**
 * Removes a port. Flows that output to it drop their packets from now on: `invalid_port`. A worker that is in a burst may still send to
 * it until `wye_datapath_quiesce` returns. For a port of `wye_port_open` there is `wye_port_close`.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_port_del(const struct wye_datapath *datapath,
                        uint32_t number,
                        struct wye_error **error);

/**
 * Marks a port up (not 0) or down. Output to a port that is down is a drop: `port_down`.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_port_set_up(const struct wye_datapath *datapath,
                           uint32_t number,
                           uint32_t up,
                           struct wye_error **error);

/**
 * The reason's name, which is also its counter's: `"no_output"`; NULL for a number that is none. The string is static.
 *
 * Any thread; does not block. Since 0.1.
 */
const char *wye_drop_name(uint16_t reason);

/**
 * Installs or changes a flow. On a change, `*before` (may be NULL) gets the statistics until then.
 *
 * Borrows everything for the call. Any thread, also from a callback; workers go on meanwhile and see the flow from their next burst
 * on at the latest. Takes the control lock. `WYE_E_INVALID` (the detail names the attribute, or the column of the text), `WYE_E_UNSUPPORTED` (a key field that
 * cannot be matched, an action that cannot be carried out), `WYE_E_EXISTS`, `WYE_E_NOT_FOUND`, `WYE_E_MATCHED`, `WYE_E_FULL`, `WYE_E_PANIC`,
 * `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `put` is NULL or a struct of the size that its first field says, whose pointers are valid for their lengths.
 */
wye_status wye_flow_put(const struct wye_datapath *datapath,
                        const struct wye_flow_request *put,
                        struct wye_flow_stats *before,
                        struct wye_error **error);

/**
 * Removes a flow; `*last` (may be NULL) gets its final statistics. Packets that a worker is carrying just now may still be counted
 * nowhere; none is counted twice.
 *
 * Any thread, also from a callback. Takes the control lock, waits for no worker. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`,
 * `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `ufid` is NULL or valid for reads of `WYE_UFID_LEN` bytes.
 */
wye_status wye_flow_del(const struct wye_datapath *datapath,
                        const uint8_t ufid[16],
                        struct wye_flow_stats *last,
                        struct wye_error **error);

/**
 * Copies a flow's attributes into `buffer` (`*buffer_len` bytes) and describes them in `*flow`. If the buffer is too small, sets
 * `*buffer_len` to what is needed: `WYE_E_NO_SPACE`.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `ufid` is NULL or valid for reads of `WYE_UFID_LEN` bytes, `buffer` for writes of `*buffer_len` bytes.
 */
wye_status wye_flow_get(const struct wye_datapath *datapath,
                        const uint8_t ufid[16],
                        void *buffer,
                        size_t *buffer_len,
                        struct wye_flow *flow,
                        struct wye_error **error);

/**
 * Which flow a packet with exactly this key would hit: writes its identifier.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `key` is valid for reads of `key_len` bytes, `ufid` for writes of `WYE_UFID_LEN`.
 */
wye_status wye_flow_match(const struct wye_datapath *datapath,
                          const void *key,
                          size_t key_len,
                          uint8_t ufid[16],
                          struct wye_error **error);

/**
 * Removes all flows; `*removed` (may be NULL) gets their number.
 *
 * Any thread, also from a callback. Takes the control lock, waits for no worker. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_flow_flush(const struct wye_datapath *datapath,
                          uint32_t *removed,
                          struct wye_error **error);

/**
 * Flows installed; 0 if the handle is none.
 *
 * Any thread, also from a callback. Takes the control lock for an instant. Since 0.1.
 */
uint32_t wye_flow_count(const struct wye_datapath *datapath);

/**
 * Begins a walk over all flows. With `terse` not 0, only identifiers and statistics are returned.
 *
 * Any thread, also from a callback. Does not block. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_flow_dump_start(const struct wye_datapath *datapath,
                               uint32_t terse,
                               struct wye_flow_dump **dump,
                               struct wye_error **error);

/**
 * Takes the next flows, `flows_max` at most, copying their attributes into `buffer` (`*buffer_len` bytes, aligned to 4). Returns how many; 0
 * at the end; `WYE_E_NO_SPACE`, with `*buffer_len` set to what the next flow needs, if the buffer does not hold one.
 *
 * Any thread, several at a time. Takes the control lock. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `flows` is valid for writes of `flows_max` elements, `buffer` of `*buffer_len` bytes.
 */
int32_t wye_flow_dump_next(const struct wye_flow_dump *dump,
                           struct wye_flow *flows,
                           uint32_t flows_max,
                           void *buffer,
                           size_t *buffer_len);

/**
 * Ends a walk; NULL is legal. Takes the handle. Any thread; does not block. Since 0.1.
 *
 * Precondition:
 * `dump` is NULL or came from `wye_flow_dump_start` and was not freed.
 */
void wye_flow_dump_free(struct wye_flow_dump *dump);

/**
 * Reads a list of actions from text, `"set(eth(dst=02:00:00:00:00:01)),2"`, and writes it as attributes to `buffer`. `*buffer_len` is the size of the
 * buffer, and afterwards how much of it is used; with `WYE_E_NO_SPACE`, how much is needed.
 *
 * Any thread, also from a callback. Does not block. `WYE_E_INVALID` (the detail names the column), `WYE_E_UNSUPPORTED`,
 * `WYE_E_NO_SPACE`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `text` is NULL or a NUL-terminated string, `buffer` valid for writes of `*buffer_len` bytes.
 */
wye_status wye_actions_from_text(const struct wye_datapath *datapath,
                                 const char *text,
                                 void *buffer,
                                 size_t *buffer_len,
                                 struct wye_error **error);

/**
 * Writes a list of actions as text to `text`. `*text_len` is the size of that buffer, and afterwards the length of the text without its
 * NUL; with `WYE_E_NO_SPACE`, the size that is needed.
 *
 * Any thread; does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_NO_SPACE`. Since 0.1.
 *
 * Precondition:
 * `actions` is valid for reads of `actions_len` bytes, `text` for writes of `*text_len`.
 */
wye_status wye_actions_to_text(const void *actions,
                               size_t actions_len,
                               char *text,
                               size_t *text_len,
                               struct wye_error **error);

/**
 * Writes a key and its mask as text: `"in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0)"`. A mask of length 0 stands for every field of
 * the key, as in an upcall's. `text` and `text_len` as in `wye_actions_to_text`.
 *
 * Any thread; does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_NO_SPACE`. Since 0.1.
 *
 * Precondition:
 * `key` and `mask` are valid for reads of their lengths, `text` for writes of `*text_len`.
 */
wye_status wye_key_to_text(const void *key,
                           size_t key_len,
                           const void *mask,
                           size_t mask_len,
                           char *text,
                           size_t *text_len,
                           struct wye_error **error);

/**
 * Writes a flow as a line of `ovs-dpctl dump-flows`: match, packets, bytes, the time since the last packet at `now_ns`, TCP flags, actions. A
 * flow without attributes (of a terse walk) begins with its identifier instead. `text` and `text_len` as in `wye_actions_to_text`.
 *
 * Any thread; does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_NO_SPACE`. Since 0.1.
 *
 * Precondition:
 * What `flow` points to is valid for its lengths, `text` for writes of `*text_len` bytes.
 */
wye_status wye_flow_to_text(const struct wye_flow *flow,
                            uint64_t now_ns,
                            char *text,
                            size_t *text_len,
                            struct wye_error **error);

/**
 * Takes the oldest upcall off the ring: those of workers without an `upcall` callback go there, as long as there is room (else they are
 * dropped: `upcall_lost`). The caller frees `*queued` with `wye_queued_upcall_free` or answers it with `wye_worker_answer`. `*upcall` describes it, until
 * then; its packet's bytes may be read and changed.
 *
 * Any thread, also from a callback. Does not block. `WYE_E_NOT_FOUND` if none waits, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_upcall_pop(const struct wye_datapath *datapath,
                          struct wye_queued_upcall **queued,
                          struct wye_upcall *upcall,
                          struct wye_error **error);

/**
 * Upcalls that wait on the ring; 0 if the handle is none. Any thread, also from a callback; does not block. Since 0.1.
 */
size_t wye_upcalls_waiting(const struct wye_datapath *datapath);

/**
 * Frees a queued upcall and its packet; NULL is legal. Any thread; does not block. Since 0.1.
 *
 * Precondition:
 * `queued` is NULL or came from `wye_upcall_pop` and was neither freed nor answered.
 */
void wye_queued_upcall_free(struct wye_queued_upcall *queued);

/**
 * Makes a worker. `ops` is copied, `ctx` handed to its callbacks.
 *
 * Any thread. Takes the control lock. `WYE_E_FULL`, `WYE_E_NO_MEMORY`, `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since
 * 0.1.
 *
 * Precondition:
 * `ops` is NULL or a struct of the size that its first field says; its callbacks keep to what their types say.
 */
wye_status wye_worker_new(const struct wye_datapath *datapath,
                          const struct wye_worker_ops *ops,
                          void *ctx,
                          struct wye_worker **worker,
                          struct wye_error **error);

/**
 * Frees a worker; NULL is legal. Takes the handle. Its counts stay in the datapath's statistics. While a call of the worker is under way, as in
 * its callbacks, it does nothing but write a line to the log.
 *
 * The owning thread. Takes the control lock. Since 0.1.
 *
 * Precondition:
 * `worker` is NULL or came from `wye_worker_new` and was not freed.
 */
void wye_worker_free(struct wye_worker *worker);

/**
 * Carries packets to their fates. When it returns, each has one: it was taken by `transmit`, given to `release`, or (without `release`) is the
 * caller's again with its `fate` written. All callbacks for them have been made.
 *
 * Borrows the list for the call, and the descriptors and buffers until they are taken or given back; they must stay in place. No packet may
 * be in the list twice. Any number of packets; they are carried in bursts of 256. Packets that `wye_datapath_inject` left are carried before them;
 * without any (`n` is 0) only those.
 *
 * The owning thread; also from `release` and `upcall` of this worker. Takes no lock that another thread can hold for long, makes no system
 * call, does not allocate unless there are upcalls. `WYE_E_INVALID` and `WYE_E_BUSY`: no packet was touched. `WYE_E_PANIC`, `WYE_E_FORKED`: those
 * that were not taken are the caller's again. Since 0.1.
 *
 * Precondition:
 * `packets` is valid for reads of `n` pointers, each to a valid descriptor whose `capacity` bytes at `buffer` are valid for reads and writes
 * and initialised.
 */
wye_status wye_worker_process(const struct wye_worker *worker,
                              struct wye_packet *const *packets,
                              size_t n,
                              uint64_t now_ns);

/**
 * Carries what the ports that this worker drives have received (`wye_port_open`), one burst of each, and what `wye_datapath_inject` left, to its
 * packets' fates. `*carried` (may be NULL) gets how many packets were received, and one more if injected ones were carried. Output to a port that
 * this worker does not drive goes to `transmit`.
 *
 * The owning thread, not from its own callbacks. System calls are the port drivers' only. Sees to it now and then that links that came
 * or went are noticed. `WYE_E_INVALID`, `WYE_E_BUSY`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_worker_poll(const struct wye_worker *worker,
                           uint64_t now_ns,
                           size_t *carried);

/**
 * Sleeps until a port of this worker has something to receive, `wye_datapath_inject` has left a packet, or `timeout_ns` are over; for workers that do
 * not spin. All are `WYE_OK`. `WYE_E_NOT_FOUND` if no packet waits and no port of this worker will ever receive again: the traces that they played
 * are over, or there are none.
 *
 * The owning thread, not from its own callbacks. Blocks. `WYE_E_IO`, `WYE_E_INVALID`, `WYE_E_BUSY`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_worker_wait(const struct wye_worker *worker,
                           uint64_t timeout_ns,
                           struct wye_error **error);

/**
 * Carries out actions on a packet without looking it up first: what a controller sends out, the answer to a queued upcall. `flags` may be
 * `WYE_EXECUTE_KEEP`; otherwise as `wye_worker_process` for one packet.
 *
 * The owning thread; also from `release` and `upcall` of this worker. Does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED` (the detail names
 * the action) and `WYE_E_BUSY`: the packet was not touched. `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * As `wye_worker_process`; `actions` is valid for reads of `actions_len` bytes.
 */
wye_status wye_worker_execute(const struct wye_worker *worker,
                              struct wye_packet *packet,
                              const void *actions,
                              size_t actions_len,
                              uint32_t flags,
                              uint64_t now_ns,
                              struct wye_error **error);

/**
 * Answers an upcall that was taken off the ring, as the callback would, and frees it. `answer->actions` are carried out by this worker.
 * The packet's fate was `upcall` when it went onto the ring; in the statistics, what is carried out now takes the place of that.
 *
 * The owning thread; also from `release` and `upcall` of this worker. Takes `queued`, whatever it answers, unless that is `WYE_E_INVALID`.
 * `WYE_E_BUSY`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `queued` came from `wye_upcall_pop` of this worker's datapath and was neither freed nor answered; `answer` and what it points to are valid.
 */
wye_status wye_worker_answer(const struct wye_worker *worker,
                             struct wye_queued_upcall *queued,
                             const struct wye_answer *answer,
                             uint64_t now_ns,
                             struct wye_error **error);

/**
 * Sets a meter, new or instead of the old one; its buckets start full, its counts at zero.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_RANGE` (the id), `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `config` is NULL or a struct of the size that its first field says.
 */
wye_status wye_meter_set(const struct wye_datapath *datapath,
                         uint32_t id,
                         const struct wye_meter_config *config,
                         uint64_t now_ns,
                         struct wye_error **error);

/**
 * Reads a meter's counts; `stats` may be NULL to ask only whether it exists.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_meter_get(const struct wye_datapath *datapath,
                         uint32_t id,
                         struct wye_meter_stats *stats,
                         struct wye_error **error);

/**
 * Removes a meter; `*last` (may be NULL) gets its final counts. Flows that use it pass everything from now on.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_meter_del(const struct wye_datapath *datapath,
                         uint32_t id,
                         struct wye_meter_stats *last,
                         struct wye_error **error);

/**
 * Sets a bond, new or changed as a whole: the port for each bucket of the packets' hash, `WYE_PORT_NONE` for none. Byte counts go on. The ports are
 * copied.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `ports` is NULL or valid for reads of `WYE_BOND_BUCKETS` elements.
 */
wye_status wye_bond_set(const struct wye_datapath *datapath,
                        uint32_t id,
                        const uint32_t ports[256],
                        struct wye_error **error);

/**
 * Removes a bond. Flows that use it drop their packets: `invalid_bond`.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_bond_del(const struct wye_datapath *datapath,
                        uint32_t id,
                        struct wye_error **error);

/**
 * Writes the bytes that each bucket has sent since the bond was made.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `bytes` is NULL or valid for writes of `WYE_BOND_BUCKETS` elements.
 */
wye_status wye_bond_stats(const struct wye_datapath *datapath,
                          uint32_t id,
                          uint64_t bytes[256],
                          struct wye_error **error);

/**
 * Sets a tunnel, new or instead of the old one. Its number is what `tnl_pop` and `encap` name; packets that `tnl_pop` takes out of it come in on the port
 * of this number, which need not exist: nothing is output to it. `tnl_push` brings its own headers and needs no tunnel.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID` names the field, and the old tunnel stays. `WYE_E_EXISTS` if the number is one
 * of a gateway's tunnels. `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `config` is NULL or a struct of the size that its first field says; `known_options` is valid for reads of `n_known_options` elements and `header` of
 * `header_len` bytes.
 */
wye_status wye_tunnel_set(const struct wye_datapath *datapath,
                          uint32_t number,
                          const struct wye_tunnel_config *config,
                          struct wye_error **error);

/**
 * Removes a tunnel. Flows that use it drop their packets: `unknown_tunnel`.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_tunnel_del(const struct wye_datapath *datapath,
                          uint32_t number,
                          struct wye_error **error);

/**
 * Makes a gateway of a datapath, which has one at most. It owns no port yet. `config` may be NULL for defaults; it is copied. Numbers of tunnels from
 * 65,536 on are the gateway's from now on; a program's own tunnels have lower ones.
 *
 * Any thread. Takes the control lock. `WYE_E_EXISTS` if there is one, `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `config` is NULL or points to a struct of the size that its first field says.
 */
wye_status wye_gateway_new(const struct wye_datapath *datapath,
                           const struct wye_gateway_config *config,
                           struct wye_gateway **gateway,
                           struct wye_error **error);

/**
 * Frees a gateway; NULL is legal. Takes the handle. Its flows and tunnels go, packets that wait for a neighbour are dropped, and the upcalls of its ports
 * are the program's again. The datapath may have been freed before.
 *
 * Any thread, not while another thread is inside a function with this handle. Takes the control lock. Since 0.1.
 *
 * Precondition:
 * `gateway` is NULL or came from `wye_gateway_new` and was not freed.
 */
void wye_gateway_free(struct wye_gateway *gateway);

/**
 * The work that packets do not do, the datapath's included: call it several times a second, instead of `wye_datapath_upkeep`. Asks neighbours again,
 * forgets stations that are too old. What it sends waits for a worker, as after `wye_datapath_inject`. `expired` (may be NULL) is told of each flow whose
 * time was over, the gateway's own included.
 *
 * Any thread. Takes the gateway's lock, which workers hold to answer an upcall, and the control lock. `WYE_E_INVALID`, `WYE_E_PANIC`,
 * `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `expired` is NULL or may be called with `ctx`.
 */
wye_status wye_gateway_upkeep(const struct wye_gateway *gateway,
                              uint64_t now_ns,
                              wye_expired_fn expired,
                              void *ctx,
                              struct wye_error **error);

/**
 * Makes a port one of VLANs, between whose ports the gateway switches frames, or changes it. Without `vlans` (`n_vlans` is 0) its frames have no tag and
 * belong to VLAN `vlan`. With them, those with a tag of one of them belong to that VLAN, and those without one to `vlan`, or to none if that is 0. What
 * was learned of the port is forgotten.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` if the port is an interface, or a VPC has frames with such a tag;
 * `WYE_E_RANGE`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `vlans` is valid for reads of `n_vlans` elements.
 */
wye_status wye_gateway_port_set(const struct wye_gateway *gateway,
                                uint32_t port,
                                uint16_t vlan,
                                const uint16_t *vlans,
                                size_t n_vlans,
                                struct wye_error **error);

/**
 * Takes a port out of all VLANs and VPCs; what was learned of it is forgotten.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_port_del(const struct wye_gateway *gateway,
                                uint32_t port,
                                struct wye_error **error);

/**
 * Reads what a gateway has counted, for `wye_stats_next` and `wye_stats_get`: `stations.*`, `flows.*`, `neighbours.*` and so on.
 *
 * Any thread, also from a callback. Does not block for long. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_stats(const struct wye_gateway *gateway,
                             struct wye_stats **stats,
                             struct wye_error **error);

/**
 * Writes what a gateway knows, for people: interfaces, routes, neighbours, VPCs and stations, a line each. Later versions may write more. `*text_len` is
 * the size of the buffer `text`, and afterwards the length of the text without its NUL; with `WYE_E_NO_SPACE`, the size that is needed.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NO_SPACE`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `text` is valid for writes of `*text_len` bytes.
 */
wye_status wye_gateway_to_text(const struct wye_gateway *gateway,
                               char *text,
                               size_t *text_len,
                               struct wye_error **error);

/**
 * Reads an address, `"192.0.2.1"`, or one with a prefix, `"2001:db8::1/64"`; without one, the prefix is the whole address.
 *
 * Any thread; does not block. `WYE_E_INVALID`. Since 0.1.
 *
 * Precondition:
 * `text` is NULL or a NUL-terminated string.
 */
wye_status wye_address_from_text(const char *text,
                                 struct wye_address *address,
                                 struct wye_error **error);

/**
 * Makes a port an interface, or changes it. Its packets are for us or for nobody: ARP, neighbour discovery and pings for our addresses are answered, packets
 * of tunnels that are listened for are taken out of them, all else is dropped: `policy`. The prefixes become routes. The addresses are announced.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID` and `WYE_E_RANGE` name the field, and nothing is changed; `WYE_E_EXISTS` if the
 * port is in a VLAN or VPC, `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `interface` is NULL or a struct of the size that its first field says; `addresses` is valid for reads of `n_addresses` elements.
 */
wye_status wye_gateway_interface_set(const struct wye_gateway *gateway,
                                     const struct wye_interface *interface,
                                     uint64_t now_ns,
                                     struct wye_error **error);

/**
 * Takes a port's addresses away, its neighbours, and all routes over it.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_interface_del(const struct wye_gateway *gateway,
                                     uint32_t port,
                                     uint64_t now_ns,
                                     struct wye_error **error);

/**
 * Adds a route over an interface; tunnels whose way it is take it at once.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` for a prefix and metric that the table has, `WYE_E_NOT_FOUND` without the
 * interface, `WYE_E_FULL`, `WYE_E_UNSUPPORTED`, `WYE_E_INVALID` (names the field), `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `route` is NULL or a struct of the size that its first field says.
 */
wye_status wye_gateway_route_add(const struct wye_gateway *gateway,
                                 const struct wye_route *route,
                                 uint64_t now_ns,
                                 struct wye_error **error);

/**
 * Removes the route for `prefix` with this metric; with `WYE_METRIC_ANY`, the one with the lowest. `table` is 0 for the main one.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_route_del(const struct wye_gateway *gateway,
                                 const struct wye_address *prefix,
                                 uint32_t metric,
                                 uint32_t table,
                                 uint64_t now_ns,
                                 struct wye_error **error);

/**
 * Sets a neighbour's link-layer address, which is then never asked for.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `mac` is NULL or valid for reads of 6 bytes.
 */
wye_status wye_gateway_neighbour_set(const struct wye_gateway *gateway,
                                     uint32_t port,
                                     const struct wye_address *address,
                                     const uint8_t mac[6],
                                     uint64_t now_ns,
                                     struct wye_error **error);

/**
 * Forgets a neighbour, set or learned; it is asked for when it is needed.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_neighbour_del(const struct wye_gateway *gateway,
                                     uint32_t port,
                                     const struct wye_address *address,
                                     uint64_t now_ns,
                                     struct wye_error **error);

/**
 * Has packets of tunnels that come to our addresses taken out: `kind` is `WYE_TUNNEL_VXLAN` or `WYE_TUNNEL_GENEVE`, `udp_port` 0 for the kind's own (4789,
 * 6081), `flags` of `WYE_TUNNEL_WITH_GBP`, `WYE_TUNNEL_WITH_GPE` (VXLAN) and `WYE_TUNNEL_WITH_CHECKSUM6`. Congestion marks come out as RFC 6040 says.
 * `*listener` gets the number that VPCs name. It stays until the gateway is freed.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` if the UDP port is listened to, `WYE_E_INVALID` (names the field),
 * `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_listen(const struct wye_gateway *gateway,
                              uint32_t kind,
                              uint16_t udp_port,
                              uint32_t flags,
                              uint32_t *listener,
                              struct wye_error **error);

/**
 * Adds a VPC, without ports and without other ends.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS`, `WYE_E_NOT_FOUND` without the listener, `WYE_E_FULL` if the stations or
 * flows of all VPCs have no share for another, `WYE_E_INVALID` (names the field), `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `config` is NULL or a struct of the size that its first field says.
 */
wye_status wye_gateway_vpc_add(const struct wye_gateway *gateway,
                               const struct wye_vpc_config *config,
                               struct wye_error **error);

/**
 * Removes a VPC, and all that is known in it.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_vpc_del(const struct wye_gateway *gateway,
                               uint32_t vni,
                               struct wye_error **error);

/**
 * Makes a port a member of a VPC: its frames with a tag of `vlan`, or with `vlan` 0 those without a tag, belong to it. The tag does not leave the port.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` if such frames belong to another, or the port to this one with another tag;
 * `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_vpc_port_add(const struct wye_gateway *gateway,
                                    uint32_t vni,
                                    uint32_t port,
                                    uint16_t vlan,
                                    struct wye_error **error);

/**
 * Takes a port out of a VPC.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_vpc_port_del(const struct wye_gateway *gateway,
                                    uint32_t vni,
                                    uint32_t port,
                                    struct wye_error **error);

/**
 * Adds another end to a VPC, or makes a learned one stay. The way there is looked for at once; packets that come before it is known wait.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS`, `WYE_E_NOT_FOUND`, `WYE_E_FULL`, `WYE_E_INVALID`, `WYE_E_PANIC`,
 * `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_vpc_remote_add(const struct wye_gateway *gateway,
                                      uint32_t vni,
                                      const struct wye_address *remote,
                                      uint64_t now_ns,
                                      struct wye_error **error);

/**
 * Takes another end out of a VPC.
 *
 * Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_gateway_vpc_remote_del(const struct wye_gateway *gateway,
                                      uint32_t vni,
                                      const struct wye_address *remote,
                                      struct wye_error **error);

/**
 * Has questions for an address in a VPC (ARP, neighbour discovery) answered with `mac`, whoever has it (RFC 1027, RFC 4861 §7.2.8); with NULL no longer.
 *
 * Any thread, also from a callback. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `mac` is NULL or valid for reads of 6 bytes.
 */
wye_status wye_gateway_vpc_proxy_set(const struct wye_gateway *gateway,
                                     uint32_t vni,
                                     const struct wye_address *address,
                                     const uint8_t *mac,
                                     struct wye_error **error);

/**
 * Has a worker carry out `actions` on a packet of these bytes that came in on `in_port`, without a lookup: the next worker of the datapath that carries
 * packets, in `wye_worker_process` or `wye_worker_poll`. One that sleeps in `wye_worker_wait` is woken. The packet is copied into a buffer of the
 * datapath's; as many may wait as upcalls may, `upcalls_max`. Actions without an output drop it.
 *
 * Any thread, also from a callback. Does not block. `WYE_E_FULL` if too many wait, `WYE_E_NO_MEMORY` without a buffer that is free and large enough,
 * `WYE_E_UNSUPPORTED` (the detail names the action), `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
 *
 * Precondition:
 * `bytes` is valid for reads of `len` bytes, `actions` of `actions_len`.
 */
wye_status wye_datapath_inject(const struct wye_datapath *datapath,
                               const void *bytes,
                               size_t len,
                               uint32_t in_port,
                               const void *actions,
                               size_t actions_len,
                               struct wye_error **error);

/**
 * Reads a datapath's statistics, summed over all workers that it ever had. Names are those of `wye_stats_next`.
 *
 * Any thread, also from a callback. Takes the control lock, waits for no worker. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
 */
wye_status wye_datapath_stats(const struct wye_datapath *datapath,
                              struct wye_stats **stats,
                              struct wye_error **error);

/**
 * The next statistic: returns 1 and writes name and value, or returns 0 at the end. `*cursor` starts at 0. The name is valid until the reading
 * is freed.
 *
 * `packets_in` packets came in; each has one fate, so it is the sum of `transmitted`, `upcall`, `parked`, `delivered` and all
 * `dropped.REASON`. Copies that actions make are counted in `copies`, `copies_transmitted` (those that went up included) and
 * `copies_dropped.REASON` only. A packet that goes up and is answered, by the callback or by `wye_worker_answer`, counts once, with its last
 * fate; but what is carried out for a copy that went up comes in as a packet of its own.
 *
 * Any thread; does not block. Since 0.1.
 */
uint32_t wye_stats_next(const struct wye_stats *stats,
                        uint32_t *cursor,
                        const char **name,
                        uint64_t *value);

/**
 * The statistic of this name.
 *
 * Any thread; does not block. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`. Since 0.1.
 *
 * Precondition:
 * `name` is NULL or a NUL-terminated string.
 */
wye_status wye_stats_get(const struct wye_stats *stats, const char *name, uint64_t *value);

/**
 * Frees a reading; NULL is legal. Any thread; does not block. Since 0.1.
 *
 * Precondition:
 * `stats` is NULL or came from this library and was not freed.
 */
void wye_stats_free(struct wye_stats *stats);

/**
 * Reads what a worker has counted.
 *
 * Any thread, while the worker lives; cheap, takes no lock. `WYE_E_INVALID`. Since 0.1.
 */
wye_status wye_worker_counters(const struct wye_worker *worker, struct wye_counters *counters);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WYE_H */

/* Values that structs begin their life with. */
#ifdef __cplusplus
template <typename T> static inline T wye_sized() { T t = T(); t.size = static_cast<uint32_t>(sizeof(T)); return t; }
#define WYE_DATAPATH_CONFIG_INIT wye_sized<wye_datapath_config>()
#define WYE_PORT_CONFIG_INIT wye_sized<wye_port_config>()
#define WYE_FLOW_REQUEST_INIT wye_sized<wye_flow_request>()
#define WYE_METER_CONFIG_INIT wye_sized<wye_meter_config>()
#define WYE_WORKER_OPS_INIT wye_sized<wye_worker_ops>()
#define WYE_TUNNEL_CONFIG_INIT wye_sized<wye_tunnel_config>()
#define WYE_GATEWAY_CONFIG_INIT wye_sized<wye_gateway_config>()
#define WYE_INTERFACE_INIT wye_sized<wye_interface>()
#define WYE_ROUTE_INIT wye_sized<wye_route>()
#define WYE_VPC_CONFIG_INIT wye_sized<wye_vpc_config>()
#else
#define WYE_DATAPATH_CONFIG_INIT { .size = sizeof(struct wye_datapath_config) }
#define WYE_PORT_CONFIG_INIT { .size = sizeof(struct wye_port_config) }
#define WYE_FLOW_REQUEST_INIT { .size = sizeof(struct wye_flow_request) }
#define WYE_METER_CONFIG_INIT { .size = sizeof(struct wye_meter_config) }
#define WYE_WORKER_OPS_INIT { .size = sizeof(struct wye_worker_ops) }
#define WYE_TUNNEL_CONFIG_INIT { .size = sizeof(struct wye_tunnel_config) }
#define WYE_GATEWAY_CONFIG_INIT { .size = sizeof(struct wye_gateway_config) }
#define WYE_INTERFACE_INIT { .size = sizeof(struct wye_interface) }
#define WYE_ROUTE_INIT { .size = sizeof(struct wye_route) }
#define WYE_VPC_CONFIG_INIT { .size = sizeof(struct wye_vpc_config) }
#endif
