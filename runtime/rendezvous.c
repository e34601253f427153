/* runtime/rendezvous.c - how ranks that are processes find each other. Start with processes_join.
 *
 * Over the wire (little endian): a rank sends a HELLO to rank 0. When rank 0 has all of them, or has found one that does not fit, it answers each
 * with a WELCOME: a verdict, and if that is good a secret and the table of ranks. Then a rank dials all lower ones and is dialled by all
 * higher ones; such a connection opens with a GREETING: the secret and who is calling.
 */
#include "runtime/plan.h"
#include "runtime/processes_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

static const char magic[8] = {'t', 'p', 'c', '-', 'r', 'a', 'n', 'k'};

/* Places in a HELLO. The first four stay where they are in every protocol. */
enum {
    HELLO_MAGIC = 0,
    HELLO_PROTOCOL = 8,
    HELLO_VERSION = 12,
    HELLO_HOST = HELLO_VERSION + VERSION_NAME,
    HELLO_RANKS = HELLO_HOST + HOST_NAME,
    HELLO_RANK = HELLO_RANKS + 4,
    HELLO_PORT = HELLO_RANK + 4,
    HELLO_PLAN = HELLO_PORT + 4,
    HELLO_OPTIONS = HELLO_PLAN + 8,
    HELLO = HELLO_OPTIONS + 8
};
enum { WELCOME = 24, ENTRY = NET_ADDRESS + HOST_NAME, GREETING = 24, STRANGERS = 64 };

/* Ranks that do not fit are waited for so long, so that the majority is known and nobody is left alone. */
#define AFTER_A_MISFIT 1.0

struct caller { /* somebody that has dialled rank 0 */
    int fd;
    unsigned char hello[HELLO];
    size_t got;
};

struct meeting {
    struct processes *p;
    const struct processes_options *options;
    struct diag *diag;
    double deadline;
    int listener; /* where the other ranks dial: rank 0's for HELLOs, everybody's for data */
    int data_listener;
    unsigned char (*hello)[HELLO]; /* by rank; rank 0's own too */
    bool *here;
    struct caller stranger[STRANGERS];
    unsigned char secret[8];
};

static const char *listing(const struct meeting *m, char *to, size_t room)
{
    size_t at = 0;
    uint32_t named = 0, missing = 0;
    for (uint32_t r = 0; r < m->p->ranks; r++)
        missing += !m->here[r];
    for (uint32_t r = 0; r < m->p->ranks && named < 8; r++)
        if (!m->here[r])
            at += (size_t)snprintf(to + at, room - at, "%s%u", named++ ? ", " : "", (unsigned)r);
    if (missing > named)
        (void)snprintf(to + at, room - at, " and %u more", (unsigned)(missing - named));
    return to;
}

/* ---- what all must have alike ------------------------------------------------------------------------------------ */

struct agreed {
    int at, bytes;
    const char *what;
    bool text;
};

static const struct agreed agreed[] = {
    {HELLO_PROTOCOL, 4, "protocol", false},           {HELLO_VERSION, VERSION_NAME, "version of tpc", true},
    {HELLO_RANKS, 4, "number of ranks", false},       {HELLO_PLAN, 8, "plan", false},
    {HELLO_OPTIONS, 8, "options for the run", false},
};

static const char *show(const struct agreed *a, const unsigned char *hello, char *to, size_t room)
{
    if (a->text)
        snprintf(to, room, "%.*s", a->bytes, (const char *)hello + a->at);
    else
        snprintf(to, room, a->bytes == 8 ? "%016llx" : "%llu", (unsigned long long)get_little(hello + a->at, a->bytes));
    for (char *c = to; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return to;
}

/* What most have (rank 0's where as many have something else). */
static uint32_t majority(const struct meeting *m, const struct agreed *a)
{
    uint32_t best = 0, most = 0;
    for (uint32_t r = 0; r < m->p->ranks; r++) {
        uint32_t same = 0;
        for (uint32_t q = 0; q < m->p->ranks && m->here[r]; q++)
            same += m->here[q] && memcmp(m->hello[r] + a->at, m->hello[q] + a->at, (size_t)a->bytes) == 0;
        if (same > most) {
            most = same;
            best = r;
        }
    }
    return best;
}

/* The first that differs, into line. false: all agree. */
static bool find_misfit(const struct meeting *m, char line[VERDICT_LINE])
{
    for (size_t i = 0; i < sizeof agreed / sizeof *agreed; i++) {
        const struct agreed *a = &agreed[i];
        uint32_t good = majority(m, a);
        for (uint32_t r = 0; r < m->p->ranks; r++) {
            if (!m->here[r] || memcmp(m->hello[r] + a->at, m->hello[good] + a->at, (size_t)a->bytes) == 0)
                continue;
            char mine[64], others[64];
            snprintf(line, VERDICT_LINE, "rank %u on %.63s does not fit: its %s is %s, that of rank %u on %.63s is %s",
                     (unsigned)r, m->p->peer[r].host, a->what, show(a, m->hello[r], mine, sizeof mine), (unsigned)good,
                     m->p->peer[good].host, show(a, m->hello[good], others, sizeof others));
            return true;
        }
    }
    return false;
}

static void write_hello(const struct meeting *m, uint16_t data_port, unsigned char *to)
{
    memset(to, 0, HELLO);
    memcpy(to + HELLO_MAGIC, magic, sizeof magic);
    put_little(to + HELLO_PROTOCOL, PROTOCOL, 4);
    snprintf((char *)to + HELLO_VERSION, VERSION_NAME, "%s", m->options->version);
    memcpy(to + HELLO_HOST, m->p->peer[m->p->rank].host, HOST_NAME);
    put_little(to + HELLO_RANKS, m->p->ranks, 4);
    put_little(to + HELLO_RANK, m->p->rank, 4);
    put_little(to + HELLO_PORT, data_port, 2);
    put_little(to + HELLO_PLAN, m->options->plan, 8);
    put_little(to + HELLO_OPTIONS, m->options->options, 8);
}

/* ---- rank 0 -------------------------------------------------------------------------------------------------------- */

/* The line is not sent: rank 0 prints it. */
static bool send_verdict(const struct meeting *m, int fd, status verdict)
{
    unsigned char head[WELCOME] = {0};
    memcpy(head, magic, sizeof magic);
    put_little(head + 8, (uint64_t)verdict, 4);
    memcpy(head + 16, m->secret, 8);
    return net_write(fd, head, WELCOME, net_now() + 1);
}

/* A whole HELLO has come. */
static bool seat(struct meeting *m, struct caller *c, char line[VERDICT_LINE])
{
    struct processes *p = m->p;
    uint32_t r = (uint32_t)get_little(c->hello + HELLO_RANK, 4);
    bool known = r > 0 && r < p->ranks;
    if (!known || m->here[r]) { /* a rank that no world of this size has: the misfit is its number of ranks */
        char host[HOST_NAME];
        snprintf(host, sizeof host, "%.63s", (const char *)c->hello + HELLO_HOST);
        if (known)
            snprintf(line, VERDICT_LINE, "two processes are rank %u: on %.63s and on %.63s", (unsigned)r,
                     p->peer[r].host, host);
        else
            snprintf(line, VERDICT_LINE, "rank %u on %.63s does not fit: it counts %u ranks, rank 0 %u", (unsigned)r,
                     host, (unsigned)get_little(c->hello + HELLO_RANKS, 4), (unsigned)p->ranks);
        for (char *at = line; *at; at++)
            *at = *at < ' ' || *at > '~' ? '?' : *at;
        (void)send_verdict(m, c->fd, TPC_RANKS);
        return false;
    }
    struct peer *peer = &p->peer[r];
    memcpy(m->hello[r], c->hello, HELLO);
    memcpy(peer->host, c->hello + HELLO_HOST, HOST_NAME - 1);
    for (char *at = peer->host; *at; at++)
        *at = *at < ' ' || *at > '~' ? '?' : *at;
    (void)net_peer(c->fd, &peer->address);
    net_set_port(&peer->address, (uint16_t)get_little(c->hello + HELLO_PORT, 2));
    peer->control = c->fd;
    m->here[r] = true;
    c->fd = -1;
    return true;
}

/* Reads of a stranger what there is. false: the meeting is off. */
static bool hear(struct meeting *m, struct caller *c, char line[VERDICT_LINE])
{
    ssize_t n = read(c->fd, c->hello + c->got, HELLO - c->got);
    bool gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    c->got += n > 0 ? (size_t)n : 0;
    size_t compare = c->got < sizeof magic ? c->got : sizeof magic;
    if (gone || memcmp(c->hello, magic, compare) != 0) { /* not one of us */
        close(c->fd);
        c->fd = -1;
        return true;
    }
    return c->got < HELLO || seat(m, c, line);
}

static void take_caller(struct meeting *m)
{
    int fd = net_accept(m->listener, 0);
    if (fd < 0)
        return;
    for (uint32_t i = 0; i < STRANGERS; i++)
        if (m->stranger[i].fd < 0) {
            m->stranger[i] = (struct caller){.fd = fd};
            return;
        }
    close(fd); /* a crowd: who is one of us will call again */
}

/* One round of waiting. false: the meeting is off, and line says why. */
static bool wait_callers(struct meeting *m, double until, struct pollfd *polled, char line[VERDICT_LINE])
{
    struct processes *p = m->p;
    uint32_t count = 0;
    polled[count++] = (struct pollfd){.fd = m->listener, .events = POLLIN};
    for (uint32_t i = 0; i < STRANGERS; i++)
        polled[count++] = (struct pollfd){.fd = m->stranger[i].fd, .events = POLLIN};
    for (uint32_t r = 1; r < p->ranks; r++)
        polled[count++] = (struct pollfd){.fd = p->peer[r].control, .events = POLLIN};
    double left = until - net_now();
    if (poll(polled, count, left < 0 ? 0 : (int)(1e3 * left) + 1) <= 0)
        return true;
    for (uint32_t r = 1; r < p->ranks; r++)
        if (polled[1 + STRANGERS + r - 1].revents) { /* nothing is due from it now */
            snprintf(line, VERDICT_LINE, "rank %u on %.63s ended before all ranks were there", (unsigned)r,
                     p->peer[r].host);
            return false;
        }
    for (uint32_t i = 0; i < STRANGERS; i++)
        if (polled[1 + i].revents && !hear(m, &m->stranger[i], line))
            return false;
    if (polled[0].revents)
        take_caller(m);
    return true;
}

static bool send_welcome(struct meeting *m, uint32_t r, status verdict)
{
    struct processes *p = m->p;
    double deadline = net_now() + 2;
    bool good = send_verdict(m, p->peer[r].control, verdict);
    for (uint32_t q = 0; q < p->ranks && good && verdict == TPC_OK; q++) {
        unsigned char entry[ENTRY] = {0};
        memcpy(entry, p->peer[q].address.bytes, NET_ADDRESS);
        memcpy(entry + NET_ADDRESS, p->peer[q].host, HOST_NAME);
        good = net_write(p->peer[r].control, entry, ENTRY, deadline);
    }
    return good;
}

static bool all_here(const struct meeting *m)
{
    for (uint32_t r = 0; r < m->p->ranks; r++)
        if (!m->here[r])
            return false;
    return true;
}

/* Rank 0 collects the others. */
static status gather_ranks(struct meeting *m)
{
    struct processes *p = m->p;
    char line[VERDICT_LINE] = "", names[128];
    double until = m->deadline;
    struct pollfd *polled = base_alloc((1 + STRANGERS + p->ranks) * sizeof *polled);
    if (!polled)
        return diag_error(m->diag, TPC_NOMEM, NULL, "out of memory");
    bool good = true, misfit = false;
    while (good && !all_here(m) && net_now() < until) {
        good = wait_callers(m, until, polled, line);
        if (!misfit && find_misfit(m, line)) {
            misfit = true;
            until = net_now() + AFTER_A_MISFIT < until ? net_now() + AFTER_A_MISFIT : until;
        }
    }
    base_free(polled);
    if (good && find_misfit(m, line))
        good = false;
    if (good && !all_here(m)) {
        snprintf(line, sizeof line, "rank %s did not come within %g s: %u ranks were expected at this place",
                 listing(m, names, sizeof names), p->timeout, (unsigned)p->ranks);
        good = false;
    }
    for (uint32_t r = 1; r < p->ranks; r++)
        if (m->here[r] && !send_welcome(m, r, good ? TPC_OK : TPC_RANKS) && good) {
            snprintf(line, sizeof line, "rank %u on %.63s ended before all ranks were there", (unsigned)r,
                     p->peer[r].host);
            good = false;
        }
    return good ? TPC_OK : diag_error(m->diag, TPC_RANKS, NULL, "%s", line);
}

/* ---- the others ---------------------------------------------------------------------------------------------------- */

static status call_first(struct meeting *m, const char *place)
{
    struct processes *p = m->p;
    const struct launch *l = &m->options->launch;
    struct net_address at;
    int fd = -1, error = 0;
    while (fd < 0 && net_now() < m->deadline) { /* it may not listen yet, nor its name be known */
        bool known = net_resolve(l->address, l->port, &at);
        fd = known ? net_dial(&at, m->deadline) : -1;
        error = known && fd < 0 ? errno : 0;
        if (fd < 0)
            (void)poll(NULL, 0, 50);
    }
    if (fd < 0)
        return diag_error(m->diag, TPC_RANKS, NULL,
                          "rank %u: nobody listens at %s, where rank 0 should be, for %g s (%s)", (unsigned)p->rank,
                          place, p->timeout, error ? strerror(error) : "the host is not known");
    p->peer[0].control = fd;
    p->peer[0].address = at;
    return TPC_OK;
}

static status read_welcome(struct meeting *m, const char *place)
{
    struct processes *p = m->p;
    unsigned char head[WELCOME], entry[ENTRY];
    double deadline = m->deadline + 2 * AFTER_A_MISFIT; /* rank 0's clock may have started later */
    if (!net_read(p->peer[0].control, head, WELCOME, deadline))
        return diag_error(m->diag, TPC_RANKS, NULL,
                          errno == ETIMEDOUT ? "rank %u: who listens at %s says nothing for %g s: is it rank 0?"
                                             : "rank %u: rank 0 at %s ended before all ranks were there",
                          (unsigned)p->rank, place, p->timeout);
    if (memcmp(head, magic, sizeof magic) != 0)
        return diag_error(m->diag, TPC_RANKS, NULL,
                          "rank %u: who listens at %s is no rank of tpc (set MASTER_PORT or TPC_PORT to a free one)",
                          (unsigned)p->rank, place);
    if (get_little(head + 8, 4) != 0)
        return TPC_RANKS; /* rank 0 prints it */
    memcpy(m->secret, head + 16, 8);
    for (uint32_t r = 0; r < p->ranks; r++) {
        if (!net_read(p->peer[0].control, entry, ENTRY, deadline))
            return diag_error(m->diag, TPC_RANKS, NULL, "rank %u: rank 0 at %s ended before all ranks were there",
                              (unsigned)p->rank, place);
        memcpy(p->peer[r].host, entry + NET_ADDRESS, HOST_NAME - 1);
        uint16_t port = (uint16_t)get_little(entry + 2, 2);
        if (r == 0)
            net_set_port(&p->peer[0].address, port);
        else
            memcpy(p->peer[r].address.bytes, entry, NET_ADDRESS);
    }
    return TPC_OK;
}

/* ---- a connection for each pair -------------------------------------------------------------------------------------- */

static bool dial_lower(struct meeting *m, uint32_t r)
{
    unsigned char greeting[GREETING] = {0};
    memcpy(greeting, magic, 8);
    memcpy(greeting + 8, m->secret, 8);
    put_little(greeting + 16, m->p->rank, 4);
    m->p->peer[r].data = net_dial(&m->p->peer[r].address, m->deadline);
    return m->p->peer[r].data >= 0 && net_write(m->p->peer[r].data, greeting, GREETING, m->deadline);
}

/* Takes one call; strangers are sent away. false: the deadline has passed. */
static bool answer_higher(struct meeting *m, uint32_t *missing)
{
    unsigned char greeting[GREETING];
    int fd = net_accept(m->data_listener, m->deadline);
    if (fd < 0)
        return false;
    double patience = net_now() + 2;
    bool ours = net_read(fd, greeting, GREETING, patience < m->deadline ? patience : m->deadline) &&
                memcmp(greeting, magic, 8) == 0 && memcmp(greeting + 8, m->secret, 8) == 0;
    uint32_t r = ours ? (uint32_t)get_little(greeting + 16, 4) : 0;
    if (r <= m->p->rank || r >= m->p->ranks || m->p->peer[r].data >= 0) {
        close(fd);
        return true;
    }
    m->p->peer[r].data = fd;
    (*missing)--;
    return true;
}

static status connect_pairs(struct meeting *m)
{
    struct processes *p = m->p;
    uint32_t missing = p->ranks - 1 - p->rank;
    char place[80];
    for (uint32_t r = 0; r < p->rank; r++)
        if (!dial_lower(m, r)) {
            net_text(&p->peer[r].address, place, sizeof place);
            return diag_error(m->diag, TPC_RANKS, NULL, "rank %u: cannot reach rank %u on %s at %s: %s",
                              (unsigned)p->rank, (unsigned)r, p->peer[r].host, place, strerror(errno));
        }
    while (missing)
        if (!answer_higher(m, &missing))
            return diag_error(m->diag, TPC_RANKS, NULL, "rank %u: %u ranks did not call within %g s", (unsigned)p->rank,
                              (unsigned)missing, p->timeout);
    return TPC_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------------- */

/* Rank 0 listens where it was told to, if that is an address of this host; else (behind a translation of addresses) everywhere. */
static status listen_first(struct meeting *m, const char *place)
{
    const struct launch *l = &m->options->launch;
    struct net_address at;
    if (!net_resolve(l->address, l->port, &at))
        return diag_error(m->diag, TPC_RANKS, NULL, "rank 0: the host '%s' is not known", l->address);
    m->listener = net_listen(&at);
    if (m->listener < 0 && errno == EADDRNOTAVAIL) {
        memset(at.bytes + 4, 0, NET_ADDRESS - 4);
        m->listener = net_listen(&at);
    }
    if (m->listener < 0)
        return diag_error(m->diag, TPC_RANKS, NULL,
                          "rank 0: cannot listen at %s: %s (set MASTER_PORT or TPC_PORT to a free one)", place,
                          strerror(errno));
    m->p->peer[0].address = at;
    return TPC_OK;
}

/* A rank takes data where it is reached by rank 0, on any port. */
static status listen_data(struct meeting *m, uint16_t *port)
{
    struct net_address at = m->p->peer[0].address;
    bool good = m->p->rank == 0 || net_local(m->p->peer[0].control, &at);
    net_set_port(&at, 0);
    m->data_listener = good ? net_listen(&at) : -1;
    if (m->data_listener < 0 || !net_local(m->data_listener, &at))
        return diag_error(m->diag, TPC_RANKS, NULL, "rank %u: cannot listen for the other ranks: %s",
                          (unsigned)m->p->rank, strerror(errno));
    *port = (uint16_t)get_little(at.bytes + 2, 2);
    return TPC_OK;
}

static status meet(struct meeting *m)
{
    struct processes *p = m->p;
    char place[300];
    uint16_t port = 0;
    snprintf(place, sizeof place, "%s:%u", m->options->launch.address, (unsigned)m->options->launch.port);
    status s = p->rank == 0 ? listen_first(m, place) : call_first(m, place);
    if (s != TPC_OK || (s = listen_data(m, &port)) != TPC_OK)
        return s;
    write_hello(m, port, m->hello[p->rank]);
    m->here[p->rank] = true;
    if (p->rank == 0) {
        net_set_port(&p->peer[0].address, port);
        s = gather_ranks(m);
    } else if (net_write(p->peer[0].control, m->hello[p->rank], HELLO, m->deadline)) {
        s = read_welcome(m, place);
    } else {
        s = diag_error(m->diag, TPC_RANKS, NULL, "rank %u: rank 0 at %s ended before all ranks were there",
                       (unsigned)p->rank, place);
    }
    if (s == TPC_OK)
        s = connect_pairs(m);
    return s == TPC_OK ? processes_watch(p) : s;
}

static struct processes *new_world(const struct processes_options *o)
{
    struct processes *p = base_alloc(sizeof *p);
    struct peer *peer = base_alloc(o->launch.ranks * sizeof *peer);
    if (!p || !peer) {
        base_free(p);
        base_free(peer);
        return NULL;
    }
    *p = (struct processes){.rank = o->launch.rank,
                            .ranks = o->launch.ranks,
                            .timeout = o->timeout,
                            .peer = peer,
                            .wake = {-1, -1},
                            .nudge = {-1, -1}};
    pthread_mutex_init(&p->lock, NULL);
    for (uint32_t r = 0; r < p->ranks; r++)
        peer[r].data = peer[r].control = -1;
    if (gethostname(peer[p->rank].host, HOST_NAME - 1) != 0)
        snprintf(peer[p->rank].host, HOST_NAME, "?");
    return p;
}

status processes_join(const struct processes_options *o, struct diag *diag, struct processes **out)
{
    struct meeting m = {
        .options = o, .diag = diag, .deadline = net_now() + o->timeout, .listener = -1, .data_listener = -1};
    *out = NULL;
    m.p = new_world(o);
    m.hello = base_alloc((size_t)o->launch.ranks * HELLO);
    m.here = base_alloc(o->launch.ranks * sizeof *m.here);
    for (uint32_t i = 0; i < STRANGERS; i++)
        m.stranger[i].fd = -1;
    status s = TPC_OK;
    if (!m.p || !m.hello || !m.here)
        s = diag_error(diag, TPC_NOMEM, NULL, "out of memory");
    else if (getrandom(m.secret, sizeof m.secret, 0) != (ssize_t)sizeof m.secret)
        s = diag_error(diag, TPC_INTERNAL, NULL, "the system gives no random bytes: %s", strerror(errno));
    if (s == TPC_OK)
        s = meet(&m);
    for (uint32_t i = 0; i < STRANGERS; i++)
        if (m.stranger[i].fd >= 0)
            close(m.stranger[i].fd);
    if (m.listener >= 0)
        close(m.listener);
    if (m.data_listener >= 0)
        close(m.data_listener);
    base_free(m.hello);
    base_free(m.here);
    if (s == TPC_OK)
        *out = m.p;
    else
        processes_free(m.p);
    return s;
}
