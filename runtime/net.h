/* runtime/net.h - TCP with deadlines. Every socket here is non-blocking, closed on exec (a compiler that we start must not hold a dead rank's
 * connections open), and sends at once.
 *
 * A deadline is a time of net_now(). Functions that fail return -1 or false with errno set; ETIMEDOUT: the deadline has passed; ECONNRESET: the other
 * side has closed. Nothing here prints.
 *
 * Section: net.c
 */
#ifndef TPC_RUNTIME_NET_H
#define TPC_RUNTIME_NET_H

#include "ir/base.h"

/* Address and port in 20 bytes, as they go over the wire: family (4 or 6), port, address; little endian but for the address itself. */
enum { NET_ADDRESS = 20 };
struct net_address {
    unsigned char bytes[NET_ADDRESS];
};

double net_now(void); /* seconds, monotonic */
/* The first address of a host. false: it is not known. */
bool net_resolve(const char *host, uint16_t port, struct net_address *out);
void net_set_port(struct net_address *a, uint16_t port);
bool net_peer(int fd, struct net_address *out);  /* whom it is connected to */
bool net_local(int fd, struct net_address *out); /* our own end */
void net_text(const struct net_address *a, char *to, size_t room);

int net_listen(const struct net_address *at); /* port 0: any */
int net_dial(const struct net_address *to, double deadline);
int net_accept(int listener, double deadline);
bool net_read(int fd, void *to, size_t bytes, double deadline);
bool net_write(int fd, const void *from, size_t bytes, double deadline);

#endif
