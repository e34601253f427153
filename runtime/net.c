/* runtime/net.c - see net.h. */
#include "runtime/net.h"
#include "runtime/plan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
};

double net_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- addresses -------------------------------------------------------------------------------------------------- */

static bool pack(const union address *from, struct net_address *out)
{
    *out = (struct net_address){{0}};
    if (from->any.sa_family == AF_INET) {
        out->bytes[0] = 4;
        put_little(out->bytes + 2, ntohs(from->v4.sin_port), 2);
        memcpy(out->bytes + 4, &from->v4.sin_addr, 4);
    } else if (from->any.sa_family == AF_INET6) {
        out->bytes[0] = 6;
        put_little(out->bytes + 2, ntohs(from->v6.sin6_port), 2);
        memcpy(out->bytes + 4, &from->v6.sin6_addr, 16);
    } else {
        errno = EAFNOSUPPORT;
        return false;
    }
    return true;
}

/* 0: of no known family. */
static socklen_t unpack(const struct net_address *from, union address *out)
{
    memset(out, 0, sizeof *out);
    uint16_t port = htons((uint16_t)get_little(from->bytes + 2, 2));
    if (from->bytes[0] == 4) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = port;
        memcpy(&out->v4.sin_addr, from->bytes + 4, 4);
        return sizeof out->v4;
    }
    if (from->bytes[0] == 6) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = port;
        memcpy(&out->v6.sin6_addr, from->bytes + 4, 16);
        return sizeof out->v6;
    }
    errno = EAFNOSUPPORT;
    return 0;
}

void net_set_port(struct net_address *a, uint16_t port)
{
    put_little(a->bytes + 2, port, 2);
}

void net_text(const struct net_address *a, char *to, size_t room)
{
    union address x;
    char text[INET6_ADDRSTRLEN] = "?";
    if (unpack(a, &x))
        (void)inet_ntop(x.any.sa_family, a->bytes + 4, text, sizeof text);
    snprintf(to, room, a->bytes[0] == 6 ? "[%s]:%u" : "%s:%u", text, (unsigned)get_little(a->bytes + 2, 2));
}

bool net_resolve(const char *host, uint16_t port, struct net_address *out)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0 || !found)
        return false;
    union address x;
    memset(&x, 0, sizeof x);
    memcpy(&x, found->ai_addr, found->ai_addrlen < sizeof x ? found->ai_addrlen : sizeof x);
    freeaddrinfo(found);
    bool good = pack(&x, out);
    net_set_port(out, port);
    return good;
}

bool net_peer(int fd, struct net_address *out)
{
    union address x;
    socklen_t size = sizeof x;
    return getpeername(fd, &x.any, &size) == 0 && pack(&x, out);
}

bool net_local(int fd, struct net_address *out)
{
    union address x;
    socklen_t size = sizeof x;
    return getsockname(fd, &x.any, &size) == 0 && pack(&x, out);
}

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

static int close_keeping_errno(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void send_at_once(int fd)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Waits until fd is ready for `events`. */
static bool wait_for(int fd, short events, double deadline)
{
    for (;;) {
        double left = deadline - net_now();
        struct pollfd p = {.fd = fd, .events = events};
        int n = left <= 0 ? 0 : poll(&p, 1, left > 3600 ? 3600 * 1000 : (int)(1e3 * left) + 1);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
        if (n == 0 && left <= 0) {
            errno = ETIMEDOUT;
            return false;
        }
    }
}

int net_listen(const struct net_address *at)
{
    union address x;
    int one = 1;
    socklen_t size = unpack(at, &x);
    int fd = size ? socket(x.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, &x.any, size) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    return close_keeping_errno(fd);
}

int net_dial(const struct net_address *to, double deadline)
{
    union address x;
    socklen_t size = unpack(to, &x);
    int fd = size ? socket(x.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1, error = 0;
    if (fd < 0)
        return -1;
    if (connect(fd, &x.any, size) != 0) {
        socklen_t length = sizeof error;
        if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, deadline))
            return close_keeping_errno(fd);
        (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
        errno = error;
    }
    if (error)
        return close_keeping_errno(fd);
    send_at_once(fd);
    return fd;
}

int net_accept(int listener, double deadline)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            send_at_once(fd);
            return fd;
        }
        bool again = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
        if (!again || !wait_for(listener, POLLIN, deadline))
            return -1;
    }
}

bool net_read(int fd, void *to, size_t bytes, double deadline)
{
    char *at = to;
    while (bytes) {
        ssize_t n = recv(fd, at, bytes, 0);
        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
            continue;
        }
        if (n == 0)
            errno = ECONNRESET;
        if (n == 0 || (errno != EAGAIN && errno != EINTR) || (errno == EAGAIN && !wait_for(fd, POLLIN, deadline)))
            return false;
    }
    return true;
}

bool net_write(int fd, const void *from, size_t bytes, double deadline)
{
    const char *at = from;
    while (bytes) {
        ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);
        if (n >= 0) {
            at += n;
            bytes -= (size_t)n;
            continue;
        }
        if ((errno != EAGAIN && errno != EINTR) || (errno == EAGAIN && !wait_for(fd, POLLOUT, deadline)))
            return false;
    }
    return true;
}
