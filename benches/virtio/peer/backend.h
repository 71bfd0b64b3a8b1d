/* backend.h - the back end's half of virtio rings, for lockstep.c and generator.c. librte_vhost has the control
 * socket and the memory map; the data path is the few lines below: one descriptor per frame. */
#ifndef BACKEND_H
#define BACKEND_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_vhost.h>

#define F_AVAIL (1u << 7)	/* flags of a packed ring's descriptor */
#define F_USED  (1u << 15)

struct ring { struct rte_vhost_vring v; uint16_t next; uint16_t wrap; };	/* next entry to take */
struct backend { volatile bool up; bool packed; unsigned hdr_len; struct ring rx, tx; struct rte_vhost_memory *mem; };

/* what becomes of a buffer: a frame is put in and its length returned; or one that was sent is looked at */
typedef uint32_t (*put_frame_fn)(const struct backend *b, uint64_t addr);
typedef void (*take_frame_fn)(const struct backend *b, uint64_t addr, uint32_t len, uint16_t flags);

/* split: up to max entries of the available ring are filled (put) or looked at (take), and marked used */
static __rte_always_inline unsigned split_run(struct backend *b, struct ring *q, put_frame_fn put, take_frame_fn take, unsigned max)
{
	uint16_t mask = q->v.size - 1;
	uint16_t n = (uint16_t)(__atomic_load_n(&q->v.avail->idx, __ATOMIC_ACQUIRE) - q->next);

	if (!n)
		return 0;
	if (n > max)
		n = max;
	for (uint16_t i = 0; i < n; i++) {
		uint16_t slot = (q->next + i) & mask, id = q->v.avail->ring[slot];
		const struct vring_desc *d = &q->v.desc[id];
		uint32_t len = 0;

		if (put)
			len = b->hdr_len + put(b, d->addr);
		else
			take(b, d->addr, d->len, d->flags);
		q->v.used->ring[slot].id = id;
		q->v.used->ring[slot].len = len;
	}
	q->next += n;
	__atomic_store_n(&q->v.used->idx, q->next, __ATOMIC_RELEASE);
	return n;
}

/* packed: the same, used in place */
static __rte_always_inline unsigned packed_run(struct backend *b, struct ring *q, put_frame_fn put, take_frame_fn take, unsigned max)
{
	unsigned n = 0;

	for (; n < max; n++) {
		struct vring_packed_desc *d = (void *)&q->v.desc_packed[q->next];
		uint16_t f = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);

		if (!!(f & F_AVAIL) != q->wrap || !!(f & F_USED) == q->wrap)
			break;
		if (put) {
			d->len = b->hdr_len + put(b, d->addr);
		} else {
			take(b, d->addr, d->len, f & ~(F_AVAIL | F_USED));
			d->len = 0;
		}
		__atomic_store_n(&d->flags, (put ? VRING_DESC_F_WRITE : 0) | (q->wrap ? F_AVAIL | F_USED : 0), __ATOMIC_RELEASE);
		if (++q->next == q->v.size) {
			q->next = 0;
			q->wrap ^= 1;
		}
	}
	return n;
}

/* gives the front end up to max frames to receive; takes up to max frames that it has sent */
static __rte_always_inline unsigned backend_give(struct backend *b, unsigned max, put_frame_fn put)
{
	return b->packed ? packed_run(b, &b->rx, put, NULL, max) : split_run(b, &b->rx, put, NULL, max);
}

static __rte_always_inline unsigned backend_take(struct backend *b, unsigned max, take_frame_fn take)
{
	return b->packed ? packed_run(b, &b->tx, NULL, take, max) : split_run(b, &b->tx, NULL, take, max);
}

/* finds both rings of a front end that has come; false if librte_vhost hasn't got them */
static inline bool backend_rings(struct backend *b, int vid, uint64_t features)
{
	struct ring *q[2] = { &b->rx, &b->tx };

	b->packed = features >> VIRTIO_F_RING_PACKED & 1;
	b->hdr_len = features & (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_NET_F_MRG_RXBUF) ? 12 : 10;
	if (rte_vhost_get_mem_table(vid, &b->mem))
		return false;
	for (int k = 0; k < 2; k++) {
		uint16_t avail = 0, used = 0;

		memset(q[k], 0, sizeof *q[k]);
		if (rte_vhost_get_vhost_vring(vid, k, &q[k]->v) || rte_vhost_get_vring_base(vid, k, &avail, &used))
			return false;
		q[k]->next = b->packed ? 0 : avail;
		q[k]->wrap = 1;
		rte_vhost_enable_guest_notification(vid, k, 0);		/* no kicks: a polling backend */
	}
	return true;
}

/* listens on a socket, and offers all that the rings above can do */
static inline bool backend_listen(const char *path, struct rte_vhost_device_ops const *ops)
{
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_F_IN_ORDER |
			    1ull << VIRTIO_F_RING_PACKED | 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << 30 /* protocol features */;

	unlink(path);
	return !rte_vhost_driver_register(path, 0) && !rte_vhost_driver_set_features(path, features) &&
	       !rte_vhost_driver_callback_register(path, ops) && !rte_vhost_driver_start(path);
}
#endif
