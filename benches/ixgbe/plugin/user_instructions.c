/*
 * A plugin for QEMU's emulator (TCG): user-mode instructions of one virtual CPU, in all and for each
 * address, in windows of time, beside the frames that a device model counted in the same windows.
 *
 *   cc -O2 -fPIC -shared -fvisibility=hidden -o user_instructions.so user_instructions.c -lpthread
 *   qemu-system-x86_64 … -plugin user_instructions.so,counters=PAGE,order=ORDER[,vcpu=1][,windows=5]
 *                                                    [,seconds=2][,warm=300000]
 *
 * PAGE is the file of `packetboat-softnic --counters`. When a file ORDER appears, it is taken away; it
 * has the name of a file for results. Windows begin once `warm` more frames were sent. When all are over
 * that file appears, with
 *
 *   window N INSTRUCTIONS SENT RECEIVED RDT-WRITES TDT-WRITES RX-FAULTS BAD-DESCRIPTORS MILLISECONDS
 *   all      the same, from the first to the last
 *   at ADDRESS INSTRUCTIONS BYTES     addresses that ran once in 100,000 frames or more; both in hex
 *   end OVERFLOW                      instructions for whose address there was no room
 *
 * and the next ORDER can come, for another program in the same guest.
 *
 * Debian ships no qemu-plugin.h, so what is used of it is declared here: plugin API version 7 (QEMU 11).
 * QEMU refuses a plugin of a version that it doesn't know.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- QEMU's side */

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 7;

typedef uint64_t plugin_id;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;

/* One 64-bit number in each virtual CPU's part of a scoreboard. */
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} plugin_u64;

enum { ADD_U64 = 0 }; /* of enum qemu_plugin_op */

typedef void (*translated_fn)(struct qemu_plugin_tb *block, void *userdata);

extern struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t bytes);
extern void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned vcpu);
extern uint64_t qemu_plugin_u64_get(plugin_u64 entry, unsigned vcpu);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_fn, void *userdata);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t n);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, size_t bytes);
extern void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, int op,
                                                                plugin_u64 entry, uint64_t operand);

/* ---- Settings */

static const char *counters_path;
static const char *order_path;
static unsigned vcpu = 1;
static int windows = 5;
static double seconds = 2;
static uint64_t warm = 300000;

/* ---- What is counted: a slot of the scoreboard for each address */

enum {
    SLOTS = 1 << 20,
    BUCKETS = 1 << 22,  /* of the table that finds an address's slot: never more than a quarter full */
    OVERFLOW_SLOT = 0,  /* for addresses beyond SLOTS */
    FIRST_SLOT = 1,
    LONGEST_INSTRUCTION = 15,
};

static const uint64_t FIRST_KERNEL_ADDRESS = 0x800000000000;

struct place {
    uint64_t address;
    uint8_t len;
    uint8_t bytes[LONGEST_INSTRUCTION];
};

static struct qemu_plugin_scoreboard *by_slot;
static plugin_u64 total;
static struct place places[SLOTS];
static uint32_t used = FIRST_SLOT; /* slots */
static struct { uint64_t key; uint32_t slot; } table[BUCKETS]; /* key: address + 1; 0 is free */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t slot_of(uint64_t address, const struct qemu_plugin_insn *instruction)
{
    uint32_t at = (uint32_t)((address * 0x9e3779b97f4a7c15ull) >> 42); /* 22 bits: a bucket */
    while (table[at].key != 0 && table[at].key != address + 1)
        at = (at + 1) % BUCKETS;
    if (table[at].key == 0) {
        if (used == SLOTS)
            return OVERFLOW_SLOT;
        table[at].key = address + 1;
        table[at].slot = used++;
    }
    /* Another program may have other instructions in the same place: those of the last one stand here. */
    struct place *place = &places[table[at].slot];
    place->address = address;
    place->len = (uint8_t)qemu_plugin_insn_data(instruction, place->bytes, LONGEST_INSTRUCTION);
    return table[at].slot;
}

/* QEMU has translated a block: each of its user-mode instructions is to count itself, whoever runs it. */
static void translated(struct qemu_plugin_tb *block, void *userdata)
{
    (void)userdata;
    size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t n = 0; n < count; n++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, n);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);
        if (address >= FIRST_KERNEL_ADDRESS)
            continue;
        pthread_mutex_lock(&table_lock);
        uint32_t slot = slot_of(address, instruction);
        pthread_mutex_unlock(&table_lock);
        plugin_u64 own = { by_slot, sizeof(uint64_t) * slot };
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD_U64, total, 1);
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD_U64, own, 1);
    }
}

/* ---- The model's counters: 16 numbers for each of two NICs */

enum { NICS = 2, NUMBERS = 16, PAGE_BYTES = 4096 };
enum { RECEIVED, SENT, RDT_WRITES, TDT_WRITES, RX_FAULTS, BAD_DESCRIPTORS };

static const volatile uint64_t *page;

static uint64_t model(int number)
{
    uint64_t sum = 0;
    for (int nic = 0; nic < NICS; nic++)
        sum += page[nic * NUMBERS + number];
    return sum;
}

/* ---- Windows */

struct moment {
    uint64_t instructions;
    uint64_t model[BAD_DESCRIPTORS + 1];
    struct timespec time;
};

static void take(struct moment *now)
{
    now->instructions = qemu_plugin_u64_get(total, vcpu);
    for (int n = 0; n <= BAD_DESCRIPTORS; n++)
        now->model[n] = model(n);
    clock_gettime(CLOCK_MONOTONIC, &now->time);
}

static void print(FILE *out, const char *name, const struct moment *from, const struct moment *to)
{
    fprintf(out, "%s %" PRIu64, name, to->instructions - from->instructions);
    static const int order[] = { SENT, RECEIVED, RDT_WRITES, TDT_WRITES, RX_FAULTS, BAD_DESCRIPTORS };
    for (size_t n = 0; n < sizeof order / sizeof *order; n++)
        fprintf(out, " %" PRIu64, to->model[order[n]] - from->model[order[n]]);
    double ms = (double)(to->time.tv_sec - from->time.tv_sec) * 1e3 +
                (double)(to->time.tv_nsec - from->time.tv_nsec) / 1e6;
    fprintf(out, " %.0f\n", ms);
}

static void sleep_for(double time)
{
    struct timespec wanted = { (time_t)time, (long)((time - (double)(time_t)time) * 1e9) };
    while (nanosleep(&wanted, &wanted) != 0)
        ;
}

/* The counts of all slots now, in new memory. QEMU goes on counting: slots differ by what runs meanwhile. */
static uint64_t *histogram(uint32_t *len)
{
    pthread_mutex_lock(&table_lock);
    *len = used;
    pthread_mutex_unlock(&table_lock);
    uint64_t *copy = calloc(SLOTS, sizeof *copy);
    if (copy != NULL)
        memcpy(copy, qemu_plugin_scoreboard_find(by_slot, vcpu), *len * sizeof *copy);
    return copy;
}

static bool measure(const char *path)
{
    uint64_t begin = model(SENT) + warm;
    while (model(SENT) < begin)
        sleep_for(0.02);
    sleep_for(0.5); /* until all that runs has been translated */

    uint32_t len;
    uint64_t *before = histogram(&len), *after = NULL;
    FILE *out = fopen(path, "w");
    bool done = false;
    struct moment first, from, to;
    if (out == NULL || before == NULL)
        goto end;
    take(&first);
    from = first;
    for (int n = 0; n < windows; n++) {
        char name[32];
        sleep_for(seconds);
        take(&to);
        snprintf(name, sizeof name, "window %d", n);
        print(out, name, &from, &to);
        from = to;
    }
    print(out, "all", &first, &to);

    after = histogram(&len);
    if (after == NULL)
        goto end;
    uint64_t frames = to.model[SENT] - first.model[SENT];
    for (uint32_t slot = FIRST_SLOT; slot < len; slot++) {
        uint64_t count = after[slot] - before[slot];
        if (count == 0 || count * 100000 < frames)
            continue;
        fprintf(out, "at %" PRIx64 " %" PRIu64 " ", places[slot].address, count);
        for (int n = 0; n < places[slot].len; n++)
            fprintf(out, "%02x", places[slot].bytes[n]);
        fputc('\n', out);
    }
    fprintf(out, "end %" PRIu64 "\n", after[OVERFLOW_SLOT] - before[OVERFLOW_SLOT]);
    done = true;
end:
    if (out != NULL && fclose(out) != 0)
        done = false;
    free(before);
    free(after);
    return done;
}

/* Takes an order, if there is one: where results are to go. */
static bool taken(char *path, size_t bytes)
{
    FILE *order = fopen(order_path, "r");
    if (order == NULL)
        return false;
    bool good = fgets(path, (int)bytes, order) != NULL;
    fclose(order);
    path[good ? strcspn(path, "\n") : 0] = 0;
    return unlink(order_path) == 0 && good;
}

static void *serve(void *unused)
{
    (void)unused;
    for (;;) {
        char path[4096], new_path[sizeof path + 4];
        if (!taken(path, sizeof path)) {
            sleep_for(0.05);
            continue;
        }
        snprintf(new_path, sizeof new_path, "%s.new", path);
        if (!measure(new_path) || rename(new_path, path) != 0) {
            fprintf(stderr, "user_instructions: %s: ", path);
            perror(NULL);
        }
    }
    return NULL;
}

/* ---- Start */

static bool set(const char *word)
{
    const char *value = strchr(word, '=');
    if (value == NULL)
        return false;
    size_t len = (size_t)(value++ - word);
    if (len == 8 && !strncmp(word, "counters", len))
        counters_path = value;
    else if (len == 5 && !strncmp(word, "order", len))
        order_path = value;
    else if (len == 4 && !strncmp(word, "vcpu", len))
        vcpu = (unsigned)atoi(value);
    else if (len == 7 && !strncmp(word, "windows", len))
        windows = atoi(value);
    else if (len == 7 && !strncmp(word, "seconds", len))
        seconds = atof(value);
    else if (len == 4 && !strncmp(word, "warm", len))
        warm = strtoull(value, NULL, 0);
    else
        return false;
    return true;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int n = 0; n < argc; n++) {
        if (!set(argv[n])) { /* argv stays valid as long as the plugin is loaded */
            fprintf(stderr, "user_instructions: wanted counters=, order=, vcpu=, windows=, seconds= or warm=, found '%s'\n", argv[n]);
            return 1;
        }
    }
    if (counters_path == NULL || order_path == NULL) {
        fprintf(stderr, "user_instructions: wanted counters=PAGE and order=ORDER\n");
        return 1;
    }
    int fd = open(counters_path, O_RDONLY | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        fprintf(stderr, "user_instructions: counters=%s: ", counters_path);
        perror(NULL);
        return 1;
    }
    close(fd);
    page = mapped;
    by_slot = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
    total = (plugin_u64){ qemu_plugin_scoreboard_new(sizeof(uint64_t)), 0 };
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
    pthread_t thread;
    return pthread_create(&thread, NULL, serve, NULL);
}
