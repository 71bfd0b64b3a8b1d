/* lockstep.c - cost per packet of a virtio FRONT END, alone, on one core, in lock step.
 *
 * WHAT IT MEASURES
 *   One process holds both ends.  librte_vhost (server) owns two sockets, the front end's two ports (client)
 *   connect to them.  librte_vhost is only used for the control socket and the memory map; the back end's half of
 *   the data path is the small ring code below.  One loop on one core does, per step:
 *     1. back end, not timed: drain port 1's TX ring completely (and check every frame), then put exactly
 *        B frames of 60 bytes in port 0's RX ring;
 *     2. front end, timed:   receive on port 0 -> MAC rewrite as l2fwd does -> send on port 1.
 *   Every step must move exactly B packets, or the program stops with an error.
 *   What is left is the front end's own work plus the L1/L2/L3 misses its data causes.  It is NOT a throughput
 *   figure.  The front end is linked: frontend_dpdk.c or frontend_packetboat.c; all else is the same for both.
 *   The back end reaches the shared memory through its own mapping, as another process would (-s: through
 *   the front end's addresses instead, see backend_addr()).
 *
 * TIMING
 *   TSC cycles.  A step is bracketed by mfence+lfence+rdtsc.  The cost of an empty bracket is measured in the same
 *   process and subtracted ("# timer").  A canary (a loop of adds whose time is known when the core is not shared
 *   with a neighbour's thread) runs before and after every chunk of 1024 packets; a chunk counts only if both are
 *   within 8 % of the best one seen (or given with -c).  16 such chunks make a round.
 *
 * OUTPUT, tab separated;  '#' starts a comment
 *   MEASURE  VERSION  CONFIG  BATCH  MEDIAN  MIN  P25       cycles per packet over the rounds kept
 *   MEASURE: NAME          the whole front-end step (the figure to compare)
 *            NAME.rx / NAME.mac / NAME.tx   its parts, timed in separate rounds with two more brackets per step
 *            NAME.empty    one receive on an empty ring, cycles per CALL (BATCH is 0), no bracket
 *
 * BUILD AND RUN   see scripts/bench.d/virtio.sh; root, 2 MiB hugepages; never touches PCI devices
 *     -o ARGS  device arguments as DPDK's virtio_user has them       -q N  queue size (256)   -m N  mbufs in the pool (8192)
 *     -b LIST  batches, e.g. 1,8,32 (each 1..64)   -r N  rounds to keep (301)     -t S  at most S seconds a row (6)
 *     -c CYC   best canary known                   -p    also measure the parts   -s    back end uses the front
 *     -l TEXT  appended to the version             -k    print the best canary and exit             end's mapping
 *     -a       shuffle the pool first: the order of the mbufs matters when they cycle through more than the L2 cache
 *     -n N     no timing: N front-end steps of the first batch (for instruction counts)
 *     -- ARGS  more EAL arguments
 *   With some receive functions DPDK stops a burst at a descriptor cache line: use batches of 1..4 or multiples of 4.
 *
 * COUNT INSTRUCTIONS (exact, independent of the machine's noise; frontend_warm() is not counted)
 *   valgrind --tool=callgrind --fair-sched=yes --toggle-collect=frontend_step \
 *       ./lockstep -o ... -b 32 -n 2048 -- --base-virtaddr=0x10000000000
 *   instructions per packet = "Collected" / packets printed on the "# counted" line.
 *   --toggle-collect=frontend_rx, frontend_tx or frontend_poll (with -p) counts that part instead.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_vhost.h>
#include "backend.h"
#include "frontend.h"

#define FRAME_LEN 60
#define CHUNK_PACKETS 1024
#define CHUNKS 16		/* good chunks per round */
#define POLLS 2000

#define die(...) do { fprintf(stderr, "lockstep: " __VA_ARGS__); fputc('\n', stderr); cleanup_sockets(); _exit(1); } while (0)

static char sock_path[2][64];
static void cleanup_sockets(void) { for (int i = 0; i < 2; i++) if (sock_path[i][0]) unlink(sock_path[i]); }

static void on_signal(int s) { (void)s; cleanup_sockets(); _exit(1); }

/* ------------------------------------------------------------------ time and canary */
static __rte_always_inline uint64_t stamp(void)
{
	uint32_t lo, hi;
	__asm__ volatile("mfence\n\tlfence\n\trdtsc\n\tlfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static uint64_t canary_best = UINT64_MAX;

/* 4 independent chains of adds: slows down when another thread shares the execution units or the clock drops */
static NOIPA uint64_t canary(void)
{
	uint64_t a = 1, b = 1, c = 1, d = 1, t = stamp();

	for (int i = 0; i < 500; i++)
		__asm__ volatile("add $1,%0\n\tadd $1,%1\n\tadd $1,%2\n\tadd $1,%3\n\t"
				 "add $1,%0\n\tadd $1,%1\n\tadd $1,%2\n\tadd $1,%3" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
	t = stamp() - t;
	if (t < canary_best)
		canary_best = t;
	return t;
}
static bool canary_good(uint64_t t) { return t * 100 <= canary_best * 108; }

/* ------------------------------------------------------------------ backend */
static struct backend be[2];
static bool same_mapping;	/* -s: see below */
static uint8_t frame[64] __rte_cache_aligned;
static uint8_t mac[6];		/* port 1's */

/* Front end's address (what a descriptor holds; virtio-user uses its own virtual addresses) -> ours. A line that
 * was last touched through one virtual address costs more on the first access through another on CPUs that predict
 * the L1 way from the virtual address; -s (same_mapping) takes that effect out. */
static __rte_always_inline void *backend_addr(const struct backend *b, uint64_t a)
{
	for (uint32_t i = 0; i < b->mem->nregions; i++) {
		const struct rte_vhost_mem_region *r = &b->mem->regions[i];
		if (a - r->guest_phys_addr < r->size)
			return (void *)(uintptr_t)(same_mapping ? a : a - r->guest_phys_addr + r->host_user_addr);
	}
	die("descriptor address %" PRIx64 " is outside the shared memory", a);
}

/* ring addresses from librte_vhost are in the vhost mapping: turn them into the front end's for -s */
static void *front_addr(const struct backend *b, void *p)
{
	for (uint32_t i = 0; i < b->mem->nregions; i++) {
		const struct rte_vhost_mem_region *r = &b->mem->regions[i];
		if ((uintptr_t)p - r->host_user_addr < r->size)
			return (void *)(uintptr_t)((uintptr_t)p - r->host_user_addr + r->guest_user_addr);
	}
	die("ring outside the shared memory");
}

static __rte_always_inline uint32_t put_frame(const struct backend *b, uint64_t addr)
{
	uint8_t *d = backend_addr(b, addr);
	struct virtio_net_hdr_mrg_rxbuf h = { .num_buffers = 1 };

	memcpy(d, &h, b->hdr_len);
	memcpy(d + b->hdr_len, frame, FRAME_LEN);
	return FRAME_LEN;
}

static void check_frame(const struct backend *b, uint64_t addr, uint32_t len, uint16_t flags)
{
	const uint8_t *d = (uint8_t *)backend_addr(b, addr) + b->hdr_len;
	static const uint8_t dst[6] = { 2, 0, 0, 0, 0, 1 };

	if (unlikely(len != b->hdr_len + FRAME_LEN || flags & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE) ||
		     memcmp(d, dst, 6) || memcmp(d + 6, mac, 6) || memcmp(d + 12, frame + 12, FRAME_LEN - 12)))
		die("transmitted frame is wrong (len %u flags %x)", len, flags);
}

static NOIPA unsigned backend_drain(void)
{
	unsigned n, sum = 0;

	while ((n = backend_take(&be[1], MAX_BATCH, check_frame)) != 0)
		sum += n;
	return sum;
}

static NOIPA unsigned backend_fill(unsigned n) { return backend_give(&be[0], n, put_frame); }

static int device_up(int vid)
{
	char name[256];
	uint64_t features;

	rte_vhost_get_ifname(vid, name, sizeof name);
	rte_vhost_get_negotiated_features(vid, &features);
	for (int i = 0; i < 2; i++) {
		struct backend *b = &be[i];
		struct ring *q[2] = { &b->rx, &b->tx };

		if (strcmp(name, sock_path[i]))
			continue;
		if (!backend_rings(b, vid, features))
			return -1;
		for (int k = 0; k < 2; k++) {
			if (same_mapping) {
				q[k]->v.desc = front_addr(b, q[k]->v.desc);	/* union with desc_packed */
				if (!b->packed) {
					q[k]->v.avail = front_addr(b, q[k]->v.avail);
					q[k]->v.used = front_addr(b, q[k]->v.used);
				}
			}
		}
		printf("# port %d features %" PRIx64 " %s size %u/%u regions %u header %u\n", i, features, b->packed ? "packed" : "split",
		       b->rx.v.size, b->tx.v.size, b->mem->nregions, b->hdr_len);
		__atomic_store_n(&b->up, true, __ATOMIC_RELEASE);
	}
	return 0;
}
static void device_down(int vid) { (void)vid; die("device went away"); }
static const struct rte_vhost_device_ops vhost_ops = { .new_device = device_up, .destroy_device = device_down };

/* ------------------------------------------------------------------ rounds */
enum part { WHOLE, RX, MAC, TX, NPARTS };
static const char *const part_name[NPARTS] = { "", ".rx", ".mac", ".tx" };

static void feed(unsigned batch)
{
	if (unlikely(backend_fill(batch) != batch))
		die("fewer than %u receive descriptors available", batch);
}
static void moved(unsigned n, unsigned batch)
{
	if (unlikely(n != batch || backend_drain() != batch))
		die("a step moved %u packets, not %u", n, batch);
}

static void warm(unsigned batch, unsigned packets)
{
	for (unsigned i = 0; i < packets; i += batch) {
		feed(batch);
		moved(frontend_warm(), batch);
	}
}

/* steps front-end steps; adds the cycles spent to sum[] (WHOLE, or RX, MAC, TX) */
static void run_steps(unsigned batch, unsigned steps, bool parts, uint64_t *sum)
{
	for (unsigned i = 0; i < steps; i++) {
		unsigned n;

		feed(batch);
		if (!parts) {
			uint64_t t = stamp();
			n = frontend_step();
			sum[WHOLE] += stamp() - t;
		} else {
			uint64_t t0 = stamp();
			n = frontend_rx();
			uint64_t t1 = stamp();
			frontend_mac();
			uint64_t t2 = stamp();
			n = frontend_tx();
			uint64_t t3 = stamp();
			sum[RX] += t1 - t0;
			sum[MAC] += t2 - t1;
			sum[TX] += t3 - t2;
		}
		moved(n, batch);
	}
}

static int cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/* Cycles of an empty bracket around a call. Means, because the TSC of some CPUs advances in steps of tens of cycles;
 * the lower quartile of many means, because a slow spell of the host was once seen to make them 5 times as long. */
static NOIPA unsigned none(void) { return 0; }

static double timer_cost(void)
{
	static double mean[80];
	uint64_t end = rte_rdtsc() + 20 * rte_get_tsc_hz();

	for (unsigned g = 0; g < RTE_DIM(mean); g++)
		for (unsigned n = 0; n < 50;) {
			uint64_t c = canary(), t = stamp();
			none();
			t = stamp() - t;
			if (canary_good(c)) {
				mean[g] += t / 50.;
				n++;
			}
			if (rte_rdtsc() > end)
				die("no good canary in 20 s (best %" PRIu64 ")", canary_best);
		}
	qsort(mean, RTE_DIM(mean), sizeof *mean, cmp);
	return mean[RTE_DIM(mean) / 4];
}

#define MAX_ROWS 17
#define MAX_ROUNDS 4096
#define VISITS 8	/* the rows take turns, so that a slow spell of the host does not cover one row only */

struct row {
	unsigned batch, n, chunks, good;	/* batch 0: empty polls; n rounds so far */
	bool parts;
	double value[NPARTS][MAX_ROUNDS];
	uint64_t worst_canary[MAX_ROUNDS];
};
static struct row rows[MAX_ROWS];

static void print_row(const char *measure, const char *version, const char *config, const struct row *r, const double *v)
{
	static double kept[MAX_ROUNDS];
	unsigned n = 0;

	for (unsigned i = 0; i < r->n; i++)
		if (canary_good(r->worst_canary[i]))
			kept[n++] = v[i];
	if (!n) {
		printf("# %s %s batch %u: no round of %u with a good canary\n", measure, config, r->batch, r->n);
		return;
	}
	qsort(kept, n, sizeof *kept, cmp);
	printf("%s%s\t%s\t%s\t%u\t%.2f\t%.2f\t%.2f\n", frontend_name, measure, version, config, r->batch, kept[n / 2], kept[0], kept[n / 4]);
	printf("# %u rounds, %u of %u chunks kept, canary best %" PRIu64 "\n", n, r->good, r->chunks, canary_best);
}

/* add up to rounds rounds to a row, in at most that many seconds */
static void measure(struct row *r, unsigned rounds, double seconds, double timer)
{
	unsigned steps = (CHUNK_PACKETS + r->batch - 1) / r->batch, last = r->n + rounds, good = 0;
	uint64_t sum[NPARTS] = { 0 }, worst = 0, end = rte_rdtsc() + (uint64_t)(seconds * rte_get_tsc_hz());

	while (r->n < last && r->n < MAX_ROUNDS && rte_rdtsc() < end) {
		uint64_t s[NPARTS] = { 0 }, c = canary();

		if (!canary_good(c))
			continue;
		run_steps(r->batch, steps, r->parts, s);
		c = RTE_MAX(c, canary());
		r->chunks++;
		if (!canary_good(c))
			continue;
		r->good++;
		worst = RTE_MAX(worst, c);
		for (int p = 0; p < NPARTS; p++)
			sum[p] += s[p];
		if (++good % CHUNKS)
			continue;
		for (int p = 0; p < NPARTS; p++) {
			r->value[p][r->n] = ((double)sum[p] / (steps * CHUNKS) - timer) / r->batch;
			sum[p] = 0;
		}
		r->worst_canary[r->n++] = worst;
		worst = 0;
	}
}

static void measure_empty(struct row *r, unsigned rounds, double seconds)
{
	unsigned last = r->n + rounds;
	uint64_t end = rte_rdtsc() + (uint64_t)(seconds * rte_get_tsc_hz());

	while (r->n < last && r->n < MAX_ROUNDS && rte_rdtsc() < end) {
		uint64_t c = canary(), t = stamp();

		for (int i = 0; i < POLLS; i++)
			if (frontend_poll())
				die("a packet from nowhere");
		t = stamp() - t;
		c = RTE_MAX(c, canary());
		r->chunks++;
		if (!canary_good(c))
			continue;
		r->good++;
		r->value[WHOLE][r->n] = (double)t / POLLS;
		r->worst_canary[r->n++] = c;
	}
}

/* ------------------------------------------------------------------ set-up */
static void backend_start(int i)
{
	const char *p = sock_path[i];

	if (!backend_listen(p, &vhost_ops))
		die("cannot start the vhost socket %s", p);
}

static int first_cpu(void)
{
	cpu_set_t set;
	int c = 0;

	sched_getaffinity(0, sizeof set, &set);
	while (c < CPU_SETSIZE - 1 && !CPU_ISSET(c, &set))
		c++;
	return c;
}

int main(int argc, char **argv)
{
	const char *devargs = "", *batches = "32,8,1", *label = "";
	unsigned queue_size = 256, mbufs = 8192, rounds = 301, count_steps = 0;
	double seconds = 6;
	bool parts = false, only_canary = false, aged = false;
	char version[64], config[256], lcore[16], *eal[32];
	int o, n = 0;

	while ((o = getopt(argc, argv, "o:q:m:b:r:t:c:l:n:pska")) != -1)
		switch (o) {
		case 'o': devargs = optarg; break;
		case 'q': queue_size = atoi(optarg); break;
		case 'm': mbufs = atoi(optarg); break;
		case 'b': batches = optarg; break;
		case 'r': rounds = RTE_MIN(atoi(optarg), 4000); break;
		case 't': seconds = atof(optarg); break;
		case 'c': canary_best = atoi(optarg); break;
		case 'l': label = optarg; break;
		case 'n': count_steps = atoi(optarg); break;
		case 'p': parts = true; break;
		case 's': same_mapping = true; break;
		case 'k': only_canary = true; break;
		case 'a': aged = true; break;
		default: fprintf(stderr, "see the comment at the top of lockstep.c\n"); return 2;
		}
	if (only_canary) {
		for (int i = 0; i < 1000000; i++)
			canary();
		printf("%" PRIu64 "\n", canary_best);
		return 0;
	}

	snprintf(lcore, sizeof lcore, "%d", first_cpu());
	const char *base[] = { argv[0], "--no-pci", "--in-memory", "--single-file-segments", "-m", "64", "--log-level=warning", "-l", lcore };
	for (unsigned i = 0; i < RTE_DIM(base); i++)
		eal[n++] = (char *)(uintptr_t)base[i];
	for (int i = optind; i < argc && n < 31; i++)
		eal[n++] = argv[i];
	eal[n] = NULL;
	if (rte_eal_init(n, eal) < 0)
		return 1;
	snprintf(version, sizeof version, "%s%s", frontend_version(), label);
	snprintf(config, sizeof config, "%s%squeue_size=%u,mbufs=%u%s%s", devargs, *devargs ? "," : "", queue_size, mbufs, same_mapping ? ",same_mapping" : "", aged ? ",aged" : "");

	memset(frame, 0xff, 6);					/* an IPv4/UDP frame; the addresses are rewritten */
	memcpy(frame + 12, "\x08\x00\x45\x00\x00\x2e", 6);
	frame[22] = 64;
	frame[23] = 17;
	for (int i = 0; i < 2; i++)
		snprintf(sock_path[i], sizeof sock_path[i], "./lockstep-%d-%d.sock", (int)getpid(), i);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGPIPE, on_signal);
	for (int i = 0; i < 2; i++)
		backend_start(i);
	struct frontend_options options = { .socket = { sock_path[0], sock_path[1] }, .devargs = devargs, .queue_size = queue_size,
					    .mbufs = mbufs, .aged = aged, .huge = !count_steps };
	if (!frontend_start(&options, mac))
		die("the front end does not start");
	for (int i = 0; i < 2; i++)
		for (int k = 0; !__atomic_load_n(&be[i].up, __ATOMIC_ACQUIRE); k++) {
			if (k == 20000)
				die("port %d did not come up", i);
			usleep(1000);
		}
	printf("# %s %s, %s, TSC %" PRIu64 " Hz\n", frontend_name, version, config, rte_get_tsc_hz());

	double timer = 0;
	if (!count_steps) {
		for (int i = 0; i < 20000; i++)
			canary();
		timer = timer_cost();
		printf("# timer %.1f cycles per bracket, subtracted\n", timer);
	}
	unsigned nrows = 0;
	for (const char *p = batches; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		unsigned batch = atoi(p);

		if (batch < 1 || batch > MAX_BATCH || nrows + 3 > MAX_ROWS)
			die("batch must be 1..%d, and not too many of them", MAX_BATCH);
		rows[nrows++].batch = batch;
		if (parts && !count_steps) {
			rows[nrows].parts = true;
			rows[nrows++].batch = batch;
		}
	}
	if (parts && !count_steps)
		nrows++;					/* batch 0 */
	frontend_burst(rows[0].batch > 32 ? MAX_BATCH : 32);
	warm(rows[0].batch, 2 * mbufs + 4 * queue_size);	/* every mbuf used, TX ring in its steady state */
	if (count_steps) {
		uint64_t unused[NPARTS] = { 0 };
		run_steps(rows[0].batch, count_steps, parts, unused);
		for (unsigned i = 0; parts && i < count_steps; i++)
			frontend_poll();
		printf("# counted\t%s\t%s\t%u\tsteps %u\tpackets %u\n", version, config, rows[0].batch, count_steps, count_steps * rows[0].batch);
		nrows = 0;
	}
	for (unsigned visit = 0; visit < VISITS; visit++)
		for (struct row *r = rows; r < rows + nrows; r++) {
			if (r->batch) {
				frontend_burst(r->batch > 32 ? MAX_BATCH : 32);
				warm(r->batch, 4 * queue_size);
				measure(r, (rounds + VISITS - 1) / VISITS, seconds / VISITS, timer);
			} else
				measure_empty(r, (rounds + VISITS - 1) / VISITS, seconds / VISITS);
		}
	for (struct row *r = rows; r < rows + nrows; r++) {
		if (!r->batch)
			print_row(".empty", version, config, r, r->value[WHOLE]);
		else for (int p = r->parts ? RX : WHOLE; p <= (r->parts ? TX : WHOLE); p++)
			print_row(part_name[p], version, config, r, r->value[p]);
	}
	fflush(stdout);
	cleanup_sockets();
	_exit(0);	/* no orderly shutdown: device_down() treats a lost device as an error */
}
