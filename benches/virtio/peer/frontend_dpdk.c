/* frontend_dpdk.c - DPDK's virtio-user as the front end for lockstep.c: what its l2fwd does with a frame */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_version.h>
#include "frontend.h"

static uint16_t burst = 32;
static struct rte_ether_addr port_mac[2];
static struct rte_mbuf *held[MAX_BATCH];
static unsigned nheld;

const char *const frontend_name = "dpdk";
const char *frontend_version(void) { return strrchr(rte_version(), ' ') + 1; }
void frontend_burst(unsigned limit) { burst = limit; }

static __rte_always_inline void rewrite(struct rte_mbuf **m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m[i], struct rte_ether_hdr *);

		/* 02:00:00:00:00:<port>; the two bytes too many are overwritten by the source address (as l2fwd does) */
		*(uint64_t *)(void *)&eth->dst_addr = 0x000000000002ull + ((uint64_t)1 << 40);
		rte_ether_addr_copy(&port_mac[1], &eth->src_addr);
	}
}

static __rte_always_inline unsigned send_all(struct rte_mbuf **m, unsigned n)
{
	unsigned sent = rte_eth_tx_burst(1, 0, m, n);

	if (unlikely(sent < n))
		rte_pktmbuf_free_bulk(m + sent, n - sent);
	return sent;
}

static __rte_always_inline unsigned step(void)
{
	struct rte_mbuf *m[MAX_BATCH];
	unsigned n = rte_eth_rx_burst(0, 0, m, burst);

	rewrite(m, n);
	return send_all(m, n);
}

NOIPA unsigned frontend_step(void) { return step(); }
NOIPA unsigned frontend_warm(void) { return step(); }
NOIPA unsigned frontend_rx(void) { return nheld = rte_eth_rx_burst(0, 0, held, burst); }
NOIPA unsigned frontend_mac(void) { rewrite(held, nheld); return nheld; }
NOIPA unsigned frontend_tx(void) { return send_all(held, nheld); }
NOIPA unsigned frontend_poll(void) { struct rte_mbuf *m[MAX_BATCH]; return rte_eth_rx_burst(0, 0, m, burst); }

/* Puts the mbufs in the pool in a random order (fixed seed), as after a long life. */
static bool age_pool(struct rte_mempool *pool, unsigned n)
{
	struct rte_mbuf **m = calloc(n, sizeof *m), *x;
	uint32_t seed = 12345;

	if (!m || rte_pktmbuf_alloc_bulk(pool, m, n))
		return false;
	for (unsigned i = n - 1; i; i--) {
		seed = seed * 1664525 + 1013904223;
		unsigned j = (seed >> 8) % (i + 1);
		x = m[i];
		m[i] = m[j];
		m[j] = x;
	}
	for (unsigned i = 0; i < n; i++)
		rte_pktmbuf_free(m[i]);
	free(m);
	return true;
}

static bool port_start(int i, const struct frontend_options *o, struct rte_mempool *pool)
{
	char name[32], args[256];
	struct rte_eth_conf conf = { 0 };
	struct rte_eth_dev_info info;
	uint16_t nrx = o->queue_size, ntx = o->queue_size;

	snprintf(name, sizeof name, "net_virtio_user%d", i);
	snprintf(args, sizeof args, "path=%s,server=0,queues=1,queue_size=%u%s%s", o->socket[i], o->queue_size,
		 *o->devargs ? "," : "", o->devargs);
	if (rte_eal_hotplug_add("vdev", name, args) || rte_eth_dev_info_get(i, &info)) {
		fprintf(stderr, "cannot create %s with %s\n", name, args);
		return false;
	}
	if (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE)		/* as l2fwd does */
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	return !rte_eth_dev_configure(i, 1, 1, &conf) && !rte_eth_dev_adjust_nb_rx_tx_desc(i, &nrx, &ntx) &&
	       !rte_eth_rx_queue_setup(i, 0, nrx, SOCKET_ID_ANY, NULL, pool) &&
	       !rte_eth_tx_queue_setup(i, 0, ntx, SOCKET_ID_ANY, NULL) && !rte_eth_dev_start(i) &&
	       !rte_eth_macaddr_get(i, &port_mac[i]) && (rte_eth_promiscuous_enable(i), true);
}

bool frontend_start(const struct frontend_options *o, uint8_t mac[6])
{
	struct rte_mempool *pool = rte_pktmbuf_pool_create("mbufs", o->mbufs, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);

	if (!pool || (o->aged && !age_pool(pool, o->mbufs)))
		return false;
	for (int i = 0; i < 2; i++)
		if (!port_start(i, o, pool))
			return false;
	memcpy(mac, &port_mac[1], 6);
	return true;
}
