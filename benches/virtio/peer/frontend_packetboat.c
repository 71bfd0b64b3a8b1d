/* frontend_packetboat.c - packetboat's front end (../src/frontend.rs) for lockstep.c */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "frontend.h"

struct Frontend;
struct Frontend *packetboat_start(const char *socket_0, const char *socket_1, const char *arguments, uint16_t queue_size,
				  unsigned mbufs, bool aged, bool huge);
void packetboat_mac(const struct Frontend *, uint8_t *mac);
void packetboat_burst(struct Frontend *, unsigned limit);
unsigned packetboat_step(struct Frontend *);
unsigned packetboat_rx(struct Frontend *);
unsigned packetboat_rewrite(struct Frontend *);
unsigned packetboat_tx(struct Frontend *);

static struct Frontend *frontend;
const char *const frontend_name = "ours";
const char *frontend_version(void) { return "packetboat"; }

bool frontend_start(const struct frontend_options *o, uint8_t mac[6])
{
	static const char *const keys[][2] = { { "packed_vq", "packed" }, { "mrg_rxbuf", "mrg-rxbuf" }, { "in_order", "in-order" } };
	char arguments[256] = "indirect=off", *copy = strdup(o->devargs), *save = NULL;

	for (char *part = strtok_r(copy, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
		char *value = strchr(part, '=');
		if (!value)
			return false;
		*value++ = 0;
		for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
			if (!strcmp(part, keys[i][0]))
				snprintf(arguments + strlen(arguments), sizeof arguments - strlen(arguments), ",%s=%s", keys[i][1], value);
	}
	free(copy);
	frontend = packetboat_start(o->socket[0], o->socket[1], arguments, o->queue_size, o->mbufs, o->aged, o->huge);
	if (frontend)
		packetboat_mac(frontend, mac);
	return frontend;
}

void frontend_burst(unsigned limit) { packetboat_burst(frontend, limit); }

NOIPA unsigned frontend_step(void) { return packetboat_step(frontend); }
NOIPA unsigned frontend_warm(void) { return packetboat_step(frontend); }
NOIPA unsigned frontend_rx(void) { return packetboat_rx(frontend); }
NOIPA unsigned frontend_mac(void) { return packetboat_rewrite(frontend); }
NOIPA unsigned frontend_tx(void) { return packetboat_tx(frontend); }
NOIPA unsigned frontend_poll(void) { return packetboat_rx(frontend); }
