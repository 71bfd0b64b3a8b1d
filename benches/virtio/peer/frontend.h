/* frontend.h - what lockstep.c asks of a front end. One is linked: frontend_dpdk.c or frontend_packetboat.c.
 * The functions that are counted are real calls (noipa): valgrind selects on their names. */
#ifndef FRONTEND_H
#define FRONTEND_H
#include <stdbool.h>
#include <stdint.h>

#define MAX_BATCH 64
#define NOIPA __attribute__((noipa))

struct frontend_options {
	const char *socket[2];	/* of the two back ends, which listen */
	const char *devargs;	/* as DPDK's virtio_user has them: packed_vq=0,mrg_rxbuf=1,... */
	unsigned queue_size, mbufs;
	bool aged;		/* the pool in random order */
	bool huge;		/* on hugepages (not under valgrind) */
};

extern const char *const frontend_name;		/* the first column: "dpdk", "ours" */
const char *frontend_version(void);
bool frontend_start(const struct frontend_options *options, uint8_t mac[6]);	/* mac: port 1's */
void frontend_burst(unsigned limit);		/* frames that one receive takes at most */

unsigned frontend_step(void);	/* receive on port 0, rewrite, send on port 1: frames sent */
unsigned frontend_warm(void);	/* the same, not counted */
unsigned frontend_rx(void);	/* its parts; the frames wait in between */
unsigned frontend_mac(void);
unsigned frontend_tx(void);
unsigned frontend_poll(void);	/* a receive that finds nothing */
#endif
