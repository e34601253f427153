/* passes/schedule.c - orders steps by phase and finds when each buffer is live.
 *
 * Requires fuse's steps in dependency order. Keeps that order within a phase; steps of PHASE_LOAD come first. Live ranges of kept buffers, weights,
 * constants, inputs and outputs are set too, for reports; only temporaries are placed by them (program_place).
 */
#include "passes/passes.h"

static void load_first(struct program *p)
{
    struct step *sorted = NEW_ARRAY(p->graph->arena, struct step, p->steps.count);
    uint32_t count = 0;
    for (int phase = PHASE_LOAD; phase <= PHASE_RUN; phase++)
        for (uint32_t i = 0; i < p->steps.count; i++)
            if (p->steps.at[i].phase == (enum step_phase)phase)
                sorted[count++] = p->steps.at[i];
    if (count != 0)
        memcpy(p->steps.at, sorted, count * sizeof *sorted);
}

static void set_live_ranges(struct program *p)
{
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        p->buffers.at[i].first = UINT32_MAX;
        p->buffers.at[i].last = 0;
    }
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t k = 0; k < p->steps.at[i].arg_count; k++) {
            struct buffer *b = &p->buffers.at[p->steps.at[i].arg[k]];
            b->first = i < b->first ? i : b->first;
            b->last = i;
        }
}

status schedule(struct program *p, struct diag *diag)
{
    (void)diag;
    load_first(p);
    set_live_ranges(p);
    return TPC_OK;
}
