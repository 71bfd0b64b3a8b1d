/* generator.c - a vhost-user back end that costs next to nothing, as generator and sink for two ports of a forwarder.
 *
 * It is the server of two sockets. On one core it takes all that the forwarder has sent, and fills every receive
 * buffer that it finds with a frame; of a frame it writes the first 64 bytes only, and reads one byte of what was
 * sent. So the forwarder, on the other core, is what limits the rate.
 *
 * Two cores of a shared machine: time is cut into windows of 1 ms, and one in which either side stood still for more
 * than 50 us is thrown away, with the two that follow (rings that ran full empty at once).
 *
 * OUTPUT, one line, tab separated: Mpps: median, 10th and 90th percentile of the good windows; good windows, all
 * windows; share of the back end's turns that found nothing to do.
 *
 *   generator EAL... -- -p SOCKET -p SOCKET [-l FRAME BYTES] [-t SECONDS] [-w SECONDS OF WARM-UP]
 *
 * The EAL needs two lcores: the first for the sockets, the second for the rings. Build and run: scripts/virtio/throughput.sh
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include "backend.h"

#define PORTS 2
#define BURST 32
#define WRITTEN 64		/* bytes of a frame that are written: the line that a NIC would leave in the cache */
#define MAX_WINDOWS 100000
#define WAIT_S 30		/* for the forwarder to connect */

static struct backend be[PORTS];
static const char *path[PORTS];
static volatile bool in_use[PORTS];	/* the ring thread is at this port's rings */
static unsigned ports, frame_len = 60;
static volatile bool stop, measuring;
static uint8_t frame[WRITTEN] __rte_cache_aligned;
static volatile uint64_t sink;

static struct window { float mpps, empty; } windows[MAX_WINDOWS];
static volatile unsigned kept, dropped;

/* The address in a descriptor is the front end's own; this side's mapping of it. A wrong one ends the program. */
static __rte_always_inline uint8_t *backend_addr(const struct backend *b, uint64_t a)
{
	for (uint32_t i = 0; i < b->mem->nregions; i++) {
		const struct rte_vhost_mem_region *r = &b->mem->regions[i];
		if (a - r->guest_phys_addr < r->size)
			return (uint8_t *)(uintptr_t)(a - r->guest_phys_addr + r->host_user_addr);
	}
	fprintf(stderr, "generator: descriptor address %" PRIx64 " is outside the shared memory\n", a);
	_exit(1);
}

static __rte_always_inline uint32_t put_frame(const struct backend *b, uint64_t addr)
{
	uint8_t *d = backend_addr(b, addr);
	struct virtio_net_hdr_mrg_rxbuf h = { .num_buffers = 1 };

	memcpy(d, &h, sizeof h);
	memcpy(d + b->hdr_len, frame, WRITTEN);
	return frame_len;
}

static __rte_always_inline void look_at_frame(const struct backend *b, uint64_t addr, uint32_t len, uint16_t flags)
{
	if (unlikely(len != b->hdr_len + frame_len || flags & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT))) {
		fprintf(stderr, "generator: a frame of %u bytes, flags %x, was sent\n", len, flags);
		_exit(1);
	}
	sink += *backend_addr(b, addr);
}

static int ring_thread(void *unused)
{
	uint64_t hz = rte_get_tsc_hz(), window = hz / 1000, gap = hz / 20000;
	uint64_t last = rte_rdtsc(), progress = last, start = last, frames = 0, turns = 0, idle = 0;
	unsigned settle = 2;	/* windows to throw away yet */
	bool bad = true;

	(void)unused;
	while (!stop) {
		unsigned taken = 0, given = 0;

		for (unsigned i = 0; i < PORTS; i++) {
			in_use[i] = true;
			rte_atomic_thread_fence(__ATOMIC_SEQ_CST);
			if (be[i].up) {
				taken += backend_take(&be[i], BURST, look_at_frame);
				given += backend_give(&be[i], BURST, put_frame);
			}
			in_use[i] = false;
		}
		uint64_t now = rte_rdtsc();

		turns++;
		idle += !(taken | given);
		bad |= now - last > gap;
		last = now;
		if (taken) {
			bad |= now - progress > gap;
			progress = now;
			frames += taken;
		}
		if (likely(now - start < window))
			continue;
		bad |= now - progress > gap;
		if (bad)
			settle = 2;
		else if (settle) {
			settle--;
			bad = true;
		}
		if (measuring && !bad && kept < MAX_WINDOWS) {
			windows[kept] = (struct window){ (double)frames * hz / (now - start) / 1e6, (double)idle / turns };
			kept++;
		} else if (measuring)
			dropped++;
		start = last = now;
		frames = turns = idle = 0;
		bad = now - progress > gap;
	}
	return 0;
}

static int device_up(int vid)
{
	char name[256];
	uint64_t features;

	rte_vhost_get_ifname(vid, name, sizeof name);
	rte_vhost_get_negotiated_features(vid, &features);
	for (unsigned i = 0; i < PORTS; i++) {
		if (strcmp(name, path[i]))
			continue;
		if (!backend_rings(&be[i], vid, features))
			return -1;
		fprintf(stderr, "# port %u: features %" PRIx64 ", %s, size %u/%u, header %u\n", i, features,
			be[i].packed ? "packed" : "split", be[i].rx.v.size, be[i].tx.v.size, be[i].hdr_len);
		__atomic_store_n(&be[i].up, true, __ATOMIC_RELEASE);
	}
	return 0;
}

static void device_down(int vid)
{
	char name[256];

	rte_vhost_get_ifname(vid, name, sizeof name);
	for (unsigned i = 0; i < PORTS; i++) {
		if (strcmp(name, path[i]) || !be[i].up)
			continue;
		be[i].up = false;
		rte_atomic_thread_fence(__ATOMIC_SEQ_CST);
		while (in_use[i])
			usleep(1);
		free(be[i].mem);
	}
}
static const struct rte_vhost_device_ops vhost_ops = { .new_device = device_up, .destroy_device = device_down };

static void leave(int code)
{
	for (unsigned i = 0; i < ports; i++)
		unlink(path[i]);
	fflush(stdout);
	_exit(code);	/* librte_vhost's threads are still there */
}
static void on_signal(int s) { (void)s; leave(1); }

static int by_rate(const void *a, const void *b)
{
	float x = ((const struct window *)a)->mpps, y = ((const struct window *)b)->mpps;
	return x < y ? -1 : x > y;
}
static int by_idleness(const void *a, const void *b)
{
	float x = ((const struct window *)a)->empty, y = ((const struct window *)b)->empty;
	return x < y ? -1 : x > y;
}

static void print_windows(void)
{
	unsigned n = kept;
	float median, low, high;

	if (!n) {
		printf("nan\tnan\tnan\t0\t%u\tnan\n", dropped);
		return;
	}
	qsort(windows, n, sizeof *windows, by_rate);
	low = windows[n / 10].mpps;
	median = windows[n / 2].mpps;
	high = windows[n * 9 / 10].mpps;
	qsort(windows, n, sizeof *windows, by_idleness);
	printf("%.3f\t%.3f\t%.3f\t%u\t%u\t%.3f\n", median, low, high, n, n + dropped, windows[n / 2].empty);
}

int main(int argc, char **argv)
{
	unsigned seconds = 2, warm_up = 1, lcore;
	int o, n = rte_eal_init(argc, argv);

	if (n < 0)
		return 1;
	argc -= n;
	argv += n;
	while ((o = getopt(argc, argv, "p:l:t:w:")) != -1)
		switch (o) {
		case 'p': if (ports < PORTS) path[ports++] = optarg; break;
		case 'l': frame_len = atoi(optarg); break;
		case 't': seconds = atoi(optarg); break;
		case 'w': warm_up = atoi(optarg); break;
		default: fprintf(stderr, "see the comment at the top of generator.c\n"); return 2;
		}
	lcore = rte_get_next_lcore(-1, 1, 0);
	if (ports != PORTS || lcore == RTE_MAX_LCORE || frame_len < 60 || frame_len > 1514) {
		fprintf(stderr, "generator: wanted two sockets, two lcores and frames of 60 to 1514 bytes\n");
		return 2;
	}
	memcpy(frame, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0\x45", 15);	/* IPv4, UDP */
	frame[16] = (frame_len - 14) >> 8;
	frame[17] = frame_len - 14;
	frame[22] = 64;
	frame[23] = 17;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	for (unsigned i = 0; i < PORTS; i++)
		if (!backend_listen(path[i], &vhost_ops)) {
			fprintf(stderr, "generator: can't start the vhost socket %s\n", path[i]);
			return 1;
		}
	rte_eal_remote_launch(ring_thread, NULL, lcore);
	for (unsigned i = 0; !(be[0].up && be[1].up); i++) {
		if (i == WAIT_S * 100) {
			fprintf(stderr, "generator: nobody came within %d s\n", WAIT_S);
			leave(1);
		}
		usleep(10000);
	}
	sleep(warm_up);
	measuring = true;
	sleep(seconds);
	measuring = false;
	stop = true;
	rte_eal_mp_wait_lcore();
	print_windows();
	leave(0);
}
