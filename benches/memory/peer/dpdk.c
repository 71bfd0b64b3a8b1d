/* The peer's side of the comparison: the rows of ../src/rows.rs, by the same names, on DPDK.
 *
 * It speaks on standard input and output, one line each: `list` prints the rows; `run ROW` runs
 * one round and prints cycles per operation and how good the canary was beside it; `once ROW N`
 * runs N iterations and prints how many operations that were, for counting instructions. Words
 * are separated by tabs.
 *
 *   cc -O3 dpdk.c -o dpdk $(pkg-config --cflags --libs libdpdk)
 *   ./dpdk -l 0 --no-pci --in-memory -m 384
 *
 * What pkg-config adds for Debian's package is -march=corei7, which is what packetboat is built
 * for, too (x86-64-v2, see .cargo/config.toml). So are the package's libraries.
 *
 * Loops are what a program would write: bulk lengths are constants that the compiler sees. The
 * mempool's cache is looked up once before a loop, which rte_mempool_get_bulk would do each time.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pause.h>
#include <rte_ring.h>
#include <rte_version.h>

#define MOST_ROWS 128
#define NAME_BYTES 64

/* What a round took. */
struct took {
	uint64_t cycles;
	uint64_t operations;
};

/* One line of the table. */
struct row {
	char name[NAME_BYTES];
	const char *unit;
	/* Of a round. */
	uint64_t iterations;
	struct took (*round)(const struct row *row, uint64_t count);
	/* Does its operation `count` times, each worth `each` of the unit. */
	void (*work)(const struct row *row, uint64_t count);
	uint64_t each;
	/* What it works on: a mempool or a ring; of the heap, a length and how many blocks. */
	void *on;
	size_t len_bytes;
	unsigned int keep;
	unsigned int flags;
};

static struct row rows[MOST_ROWS];
static unsigned int row_count;

static __rte_noreturn __rte_cold void
give_up(const char *what)
{
	fprintf(stderr, "bench-memory-peer: %s\n", what);
	exit(1);
}

/* Not inlined: callgrind counts what happens in here. */
static __rte_noinline void
counted_part(void (*work)(const struct row *row, uint64_t count), const struct row *row,
	uint64_t count)
{
	work(row, count);
}

static struct took
timed_round(const struct row *row, uint64_t count)
{
	uint64_t start = rte_rdtsc();

	counted_part(row->work, row, count);
	return (struct took){ rte_rdtsc() - start, count * row->each };
}

static struct row *
add_row(const char *unit, uint64_t iterations,
	struct took (*round)(const struct row *row, uint64_t count), void *on)
{
	struct row *row;

	if (row_count == MOST_ROWS)
		give_up("more rows than MOST_ROWS");
	row = &rows[row_count++];
	row->unit = unit;
	row->iterations = iterations;
	row->round = round;
	row->on = on;
	return row;
}

static struct row *
add_timed_row(const char *unit, uint64_t iterations,
	void (*work)(const struct row *row, uint64_t count), uint64_t each, void *on)
{
	struct row *row = add_row(unit, iterations, timed_round, on);

	row->work = work;
	row->each = each;
	return row;
}

#define NAME(row, ...) snprintf((row)->name, NAME_BYTES, __VA_ARGS__)

/* ---------- canary ---------- */

static uint64_t canary_best = UINT64_MAX;

/* Four chains of shifts and exclusive ors that don't wait for each other: it takes longer whenever
 * something else runs on the core's other hardware thread. */
static uint64_t
chirp(void)
{
	uint64_t start = rte_rdtsc();
	uint64_t a = 1, b = 2, c = 3, d = 4;

	__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
	for (int i = 0; i < 250; i++) {
		a ^= a << 13;
		b ^= b << 11;
		c ^= c << 9;
		d ^= d << 7;
		a ^= a >> 7;
		b ^= b >> 5;
		c ^= c >> 3;
		d ^= d >> 9;
	}
	__asm__ volatile("" : : "r"(a), "r"(b), "r"(c), "r"(d));
	return rte_rdtsc() - start;
}

/* How long it takes now, against the best so far: 1 is good. */
static double
canary(void)
{
	uint64_t now = chirp();

	if (now < canary_best)
		canary_best = now;
	return (double)now / canary_best;
}

/* ---------- mempool ---------- */

static __rte_always_inline void
mempool_work(const struct row *row, uint64_t count, unsigned int bulk, unsigned int keep)
{
	struct rte_mempool *pool = row->on;
	struct rte_mempool_cache *cache = rte_mempool_default_cache(pool, rte_lcore_id());
	void *objects[128] __rte_cache_aligned;

	for (uint64_t i = 0; i < count; i++) {
		for (unsigned int k = 0; k < keep; k += bulk)
			if (unlikely(rte_mempool_generic_get(pool, &objects[k], bulk, cache) < 0))
				give_up("the mempool is empty");
		for (unsigned int k = 0; k < keep; k += bulk)
			rte_mempool_generic_put(pool, &objects[k], bulk, cache);
	}
}

#define MEMPOOL_WORK(bulk, keep)                                                      \
	static void mempool_##bulk##_of_##keep(const struct row *row, uint64_t count) \
	{                                                                             \
		mempool_work(row, count, bulk, keep);                                 \
	}
MEMPOOL_WORK(1, 32)
MEMPOOL_WORK(4, 32)
MEMPOOL_WORK(32, 32)
MEMPOOL_WORK(1, 128)
MEMPOOL_WORK(4, 128)
MEMPOOL_WORK(32, 128)

static void
mempool_rows(void)
{
	static const unsigned int caches[] = { 0, 256, 512 };
	static const struct {
		unsigned int bulk;
		unsigned int keep;
		void (*work)(const struct row *row, uint64_t count);
	} kinds[] = {
		{ 1, 32, mempool_1_of_32 },   { 4, 32, mempool_4_of_32 },
		{ 32, 32, mempool_32_of_32 }, { 1, 128, mempool_1_of_128 },
		{ 4, 128, mempool_4_of_128 }, { 32, 128, mempool_32_of_128 },
	};
	char name[NAME_BYTES];

	for (unsigned int c = 0; c < RTE_DIM(caches); c++) {
		snprintf(name, sizeof(name), "objects %u", caches[c]);
		struct rte_mempool *pool = rte_mempool_create(name, 32767, 64, caches[c], 0, NULL,
			NULL, NULL, NULL, SOCKET_ID_ANY, 0);
		if (pool == NULL)
			give_up("no memory for a mempool");
		for (unsigned int k = 0; k < RTE_DIM(kinds); k++) {
			struct row *row = add_timed_row("cycles/object", 2000, kinds[k].work,
				kinds[k].keep, pool);
			NAME(row, "mempool cache=%u keep=%u bulk=%u get+put", caches[c],
				kinds[k].keep, kinds[k].bulk);
		}
	}
}

/* ---------- ring ---------- */

static __rte_always_inline void
ring_work(const struct row *row, uint64_t count, unsigned int n, bool burst)
{
	struct rte_ring *ring = row->on;
	void *values[32] __rte_cache_aligned = { NULL };

	for (uint64_t i = 0; i < count; i++) {
		unsigned int in = burst ? rte_ring_enqueue_burst(ring, values, n, NULL) :
					  rte_ring_enqueue_bulk(ring, values, n, NULL);
		if (unlikely(in != n))
			give_up("the ring is full");
		unsigned int out = burst ? rte_ring_dequeue_burst(ring, values, n, NULL) :
					   rte_ring_dequeue_bulk(ring, values, n, NULL);
		if (unlikely(out != n))
			give_up("the ring is empty");
	}
	__asm__ volatile("" : : "r"(values) : "memory");
}

#define RING_WORK(n)                                                     \
	static void ring_bulk_##n(const struct row *row, uint64_t count)  \
	{                                                                 \
		ring_work(row, count, n, false);                          \
	}                                                                 \
	static void ring_burst_##n(const struct row *row, uint64_t count) \
	{                                                                 \
		ring_work(row, count, n, true);                           \
	}
RING_WORK(1)
RING_WORK(8)
RING_WORK(32)

static const struct {
	const char *name;
	unsigned int flags;
} ring_modes[] = {
	{ "sp/sc", RING_F_SP_ENQ | RING_F_SC_DEQ },
	{ "mp/mc", 0 },
	{ "rts", RING_F_MP_RTS_ENQ | RING_F_MC_RTS_DEQ },
	{ "hts", RING_F_MP_HTS_ENQ | RING_F_MC_HTS_DEQ },
};

static struct rte_ring *
new_ring(const char *name, unsigned int flags)
{
	struct rte_ring *ring = rte_ring_create(name, 4096, SOCKET_ID_ANY, flags);

	if (ring == NULL)
		give_up("no memory for a ring");
	return ring;
}

static void
ring_rows(void)
{
	static const struct {
		unsigned int n;
		const char *kind;
		void (*work)(const struct row *row, uint64_t count);
	} kinds[] = {
		{ 1, "bulk", ring_bulk_1 },   { 1, "burst", ring_burst_1 },
		{ 8, "bulk", ring_bulk_8 },   { 8, "burst", ring_burst_8 },
		{ 32, "bulk", ring_bulk_32 }, { 32, "burst", ring_burst_32 },
	};

	for (unsigned int m = 0; m < RTE_DIM(ring_modes); m++) {
		struct rte_ring *ring = new_ring(ring_modes[m].name, ring_modes[m].flags);
		for (unsigned int k = 0; k < RTE_DIM(kinds); k++) {
			struct row *row =
				add_timed_row("cycles/pair", 20000, kinds[k].work, 1, ring);
			NAME(row, "ring %s %s n=%u enqueue+dequeue", ring_modes[m].name,
				kinds[k].kind, kinds[k].n);
		}
	}
}

/* ---------- mbuf ---------- */

static void
mbuf_single(const struct row *row, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		struct rte_mbuf *mbuf = rte_pktmbuf_alloc(row->on);
		if (unlikely(mbuf == NULL))
			give_up("the pool of mbufs is empty");
		rte_pktmbuf_free(mbuf);
	}
}

static void
mbuf_32(const struct row *row, uint64_t count)
{
	struct rte_mbuf *mbufs[32];

	for (uint64_t i = 0; i < count; i++) {
		for (unsigned int k = 0; k < 32; k++) {
			mbufs[k] = rte_pktmbuf_alloc(row->on);
			if (unlikely(mbufs[k] == NULL))
				give_up("the pool of mbufs is empty");
		}
		for (unsigned int k = 0; k < 32; k++)
			rte_pktmbuf_free(mbufs[k]);
	}
}

static __rte_always_inline void
mbuf_bulks(const struct row *row, uint64_t count, unsigned int bulks)
{
	struct rte_mbuf *mbufs[128];

	for (uint64_t i = 0; i < count; i++) {
		for (unsigned int k = 0; k < bulks; k++)
			if (unlikely(rte_pktmbuf_alloc_bulk(row->on, &mbufs[k * 32], 32) != 0))
				give_up("the pool of mbufs is empty");
		for (unsigned int k = 0; k < bulks; k++)
			rte_pktmbuf_free_bulk(&mbufs[k * 32], 32);
	}
}

static void
mbuf_one_bulk(const struct row *row, uint64_t count)
{
	mbuf_bulks(row, count, 1);
}

static void
mbuf_four_bulks(const struct row *row, uint64_t count)
{
	mbuf_bulks(row, count, 4);
}

static void
mbuf_rows(void)
{
	static const unsigned int caches[] = { 0, 256, 512 };
	static const struct {
		const char *name;
		uint64_t each;
		void (*work)(const struct row *row, uint64_t count);
	} kinds[] = {
		{ "alloc+free keep=1", 1, mbuf_single },
		{ "alloc+free keep=32", 32, mbuf_32 },
		{ "alloc_bulk+free_bulk 32", 32, mbuf_one_bulk },
		{ "alloc_bulk+free_bulk 4x32 keep=128", 128, mbuf_four_bulks },
	};
	char name[NAME_BYTES];

	for (unsigned int c = 0; c < RTE_DIM(caches); c++) {
		snprintf(name, sizeof(name), "mbufs %u", caches[c]);
		struct rte_mempool *pool = rte_pktmbuf_pool_create(name, 16383, caches[c], 0,
			RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
		if (pool == NULL)
			give_up("no memory for a pool of mbufs");
		for (unsigned int k = 0; k < RTE_DIM(kinds); k++) {
			struct row *row = add_timed_row("cycles/mbuf", 2000, kinds[k].work,
				kinds[k].each, pool);
			NAME(row, "mbuf cache=%u %s", caches[c], kinds[k].name);
		}
	}
}

/* ---------- heap ---------- */

#define MOST_BLOCKS 1024
#define SHUFFLED 1
#define FREEING 2

static void *blocks[MOST_BLOCKS];

static __rte_always_inline void *
alloc(size_t len_bytes)
{
	void *block = rte_malloc(NULL, len_bytes, 0);

	if (unlikely(block == NULL))
		give_up("the heap is empty");
	return block;
}

static void
heap_pair(const struct row *row, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		rte_free(alloc(row->len_bytes));
}

/* Marsaglia's xorshift of 32 bits. */
static void
shuffle(unsigned int count)
{
	static uint32_t number = 12345;

	for (unsigned int last = count - 1; last > 0; last--) {
		number ^= number << 13;
		number ^= number >> 17;
		number ^= number << 5;
		unsigned int other = number % (last + 1);
		void *block = blocks[last];
		blocks[last] = blocks[other];
		blocks[other] = block;
	}
}

static void
take_blocks(const struct row *row, uint64_t count)
{
	for (uint64_t k = 0; k < count; k++)
		blocks[k] = alloc(row->len_bytes);
}

static void
give_blocks(const struct row *row __rte_unused, uint64_t count)
{
	for (uint64_t k = 0; k < count; k++)
		rte_free(blocks[k]);
}

/* One iteration is all blocks; what isn't asked for is neither timed nor counted. */
static struct took
heap_many(const struct row *row, uint64_t count)
{
	uint64_t cycles = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t start = rte_rdtsc();
		if (row->flags & FREEING)
			take_blocks(row, row->keep);
		else
			counted_part(take_blocks, row, row->keep);
		uint64_t filled = rte_rdtsc();
		if (row->flags & SHUFFLED)
			shuffle(row->keep);
		uint64_t shuffled = rte_rdtsc();
		if (row->flags & FREEING)
			counted_part(give_blocks, row, row->keep);
		else
			give_blocks(row, row->keep);
		uint64_t emptied = rte_rdtsc();
		cycles += row->flags & FREEING ? emptied - shuffled : filled - start;
	}
	return (struct took){ cycles, count * row->keep };
}

static void
heap_rows(void)
{
	static const struct {
		size_t len_bytes;
		unsigned int keep;
		unsigned int pairs;
	} kinds[] = {
		{ 64, 1024, 5000 },
		{ 1024, 1024, 5000 },
		{ 65536, 256, 500 },
		{ 1048576, 64, 100 },
	};
	/* In the order of ours. */
	static const unsigned int flags[] = { 0, FREEING, SHUFFLED, SHUFFLED | FREEING };

	for (unsigned int k = 0; k < RTE_DIM(kinds); k++) {
		struct row *row =
			add_timed_row("cycles/pair", kinds[k].pairs, heap_pair, 1, NULL);
		row->len_bytes = kinds[k].len_bytes;
		NAME(row, "heap alloc+free %zu keep=1", kinds[k].len_bytes);
		for (unsigned int f = 0; f < RTE_DIM(flags); f++) {
			row = add_row("cycles/call", 1, heap_many, NULL);
			row->len_bytes = kinds[k].len_bytes;
			row->keep = kinds[k].keep;
			row->flags = flags[f];
			NAME(row, "heap %s %zu keep=%u %s",
				flags[f] & FREEING ? "free" : "alloc", kinds[k].len_bytes,
				kinds[k].keep, flags[f] & SHUFFLED ? "random" : "fifo");
		}
	}
}

/* ---------- two cores ---------- */

static struct {
	unsigned int lcore;
	struct rte_ring *ring;
	struct rte_mempool *pool;
	unsigned int n;
	uint64_t total;
	/* Set with release, read with acquire. */
	uint32_t ready;
} other;

static int
take_bursts(void *unused __rte_unused)
{
	void *to[32];
	uint64_t got = 0;

	__atomic_store_n(&other.ready, 1, __ATOMIC_RELEASE);
	while (got < other.total)
		got += rte_ring_dequeue_burst(other.ring, to, other.n, NULL);
	return 0;
}

static int
put_back(void *unused __rte_unused)
{
	void *object;

	__atomic_store_n(&other.ready, 1, __ATOMIC_RELEASE);
	for (uint64_t got = 0; got < other.total;) {
		if (rte_ring_dequeue(other.ring, &object) != 0)
			continue;
		rte_mempool_put(other.pool, object);
		got++;
	}
	return 0;
}

/* Starts `job` on the other lcore; returns when it runs. */
static void
start_other(lcore_function_t *job)
{
	__atomic_store_n(&other.ready, 0, __ATOMIC_RELAXED);
	if (rte_eal_remote_launch(job, NULL, other.lcore) != 0)
		give_up("the other lcore is busy");
	while (__atomic_load_n(&other.ready, __ATOMIC_ACQUIRE) == 0)
		rte_pause();
}

static __rte_always_inline struct took
exchange_round(const struct row *row, uint64_t total, unsigned int n)
{
	void *from[32] = { NULL };
	uint64_t sent = 0;

	other.ring = row->on;
	other.n = n;
	other.total = total;
	start_other(take_bursts);
	uint64_t start = rte_rdtsc();
	while (sent < total) {
		uint64_t left = total - sent;
		sent += rte_ring_enqueue_burst(other.ring, from, left < n ? left : n, NULL);
	}
	rte_eal_wait_lcore(other.lcore);
	return (struct took){ rte_rdtsc() - start, total };
}

#define EXCHANGE_ROUND(n)                                                      \
	static struct took exchange_##n(const struct row *row, uint64_t total) \
	{                                                                      \
		return exchange_round(row, total, n);                          \
	}
EXCHANGE_ROUND(1)
EXCHANGE_ROUND(8)
EXCHANGE_ROUND(32)

static struct took
mempool_exchange(const struct row *row, uint64_t total)
{
	void *object;

	other.ring = row->on;
	other.total = total;
	start_other(put_back);
	uint64_t start = rte_rdtsc();
	for (uint64_t sent = 0; sent < total;) {
		if (rte_mempool_get(other.pool, &object) != 0)
			continue;
		while (rte_ring_enqueue(other.ring, object) != 0)
			;
		sent++;
	}
	rte_eal_wait_lcore(other.lcore);
	return (struct took){ rte_rdtsc() - start, total };
}

static void
two_core_rows(void)
{
	static const struct {
		unsigned int n;
		struct took (*round)(const struct row *row, uint64_t count);
	} kinds[] = { { 1, exchange_1 }, { 8, exchange_8 }, { 32, exchange_32 } };
	char name[NAME_BYTES];
	struct row *row;

	for (unsigned int m = 0; m < 2; m++) {
		for (unsigned int k = 0; k < RTE_DIM(kinds); k++) {
			snprintf(name, sizeof(name), "exchange %u %u", m, kinds[k].n);
			row = add_row("cycles/element", 128000, kinds[k].round,
				new_ring(name, ring_modes[m].flags));
			NAME(row, "two cores: ring %s burst n=%u", ring_modes[m].name, kinds[k].n);
		}
	}
	other.pool = rte_mempool_create("exchanged", 32767, 64, 256, 0, NULL, NULL, NULL, NULL,
		SOCKET_ID_ANY, 0);
	if (other.pool == NULL)
		give_up("no memory for a mempool");
	row = add_row("cycles/object", 64000, mempool_exchange,
		new_ring("exchanged objects", RING_F_SP_ENQ | RING_F_SC_DEQ));
	NAME(row, "two cores: mempool get here, put there");
}

/* ---------- the conversation ---------- */

/* Not inlined: callgrind writes down its counts when this has run. */
static __rte_noinline void
once_is_done(void)
{
	__asm__ volatile("");
}

static const struct row *
find(const char *name)
{
	for (unsigned int i = 0; i < row_count; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	fprintf(stderr, "bench-memory-peer: no row '%s'\n", name);
	exit(1);
}

static void
answer(char *line)
{
	char *rest = line;
	const char *verb = strsep(&rest, "\t");
	const char *name = strsep(&rest, "\t");

	if (strcmp(verb, "list") == 0) {
		for (unsigned int i = 0; i < row_count; i++)
			printf("%s\t%s\n", rows[i].name, rows[i].unit);
		printf(".\n");
	} else if (strcmp(verb, "run") == 0 && name != NULL) {
		const struct row *row = find(name);
		/* The other side has had the core, and its caches, meanwhile. */
		row->round(row, row->iterations);
		double before = canary();
		struct took took = row->round(row, row->iterations);
		double after = canary();
		printf("%f\t%f\n", (double)took.cycles / took.operations, RTE_MAX(before, after));
	} else if (strcmp(verb, "once") == 0 && name != NULL && rest != NULL) {
		const struct row *row = find(name);
		struct took took = row->round(row, strtoull(rest, NULL, 10));
		once_is_done();
		printf("%" PRIu64 "\n", took.operations);
	} else {
		give_up("wanted list, run ROW or once ROW N");
	}
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	char line[256];
	char folder[256];

	if (rte_eal_init(argc, argv) < 0)
		return 1;
	mempool_rows();
	ring_rows();
	mbuf_rows();
	heap_rows();
	other.lcore = rte_get_next_lcore(-1, 1, 0);
	if (other.lcore != RTE_MAX_LCORE)
		two_core_rows();
	for (unsigned int i = 0; i < 20000; i++)
		canary();
	printf("%s\n", rte_version());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		answer(line);
	}
	/* Empty with --in-memory and --no-telemetry, and left behind by the EAL. */
	snprintf(folder, sizeof(folder), "%s", rte_eal_get_runtime_dir());
	rte_eal_cleanup();
	rmdir(folder);
	return 0;
}
