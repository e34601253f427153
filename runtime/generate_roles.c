/* runtime/generate_roles.c - what a model's inputs are for: by what the caller says, by structure, then by the names that exporters share.
 *
 * Structure is what the graph does with an input's elements: looked up in a table as rows, turned into angles, written to places, compared with
 * counters, taken for true or false, summed. Start with roles_find.
 */
#include "runtime/generate_impl.h"

enum trait {
    TRAIT_TABLE = 1,  /* picks rows of a weight */
    TRAIT_ANGLE = 2,  /* of it a sine or cosine is taken */
    TRAIT_PLACE = 4,  /* says where something is written, or read in what is no weight */
    TRAIT_ORDER = 8,  /* is compared with a counter */
    TRAIT_TRUTH = 16, /* is taken for true or false, or weighs what is computed */
    TRAIT_SUM = 32    /* is summed */
};
enum { TRAITS_POSITION = TRAIT_ANGLE | TRAIT_PLACE | TRAIT_ORDER, TRAITS_MASK = TRAIT_TRUTH | TRAIT_SUM };

struct traits {
    unsigned set;
    int64_t rows; /* TRAIT_TABLE */
};

struct finder {
    const struct plan *plan;
    const struct graph *graph;
    const struct generate_options *o;
    struct arena *arena;
    struct diag *diag;
    struct roles *out;
    struct uses uses;
    bool *fixed;           /* per value: no input is above it */
    bool *seen;            /* per value, of the walk in hand */
    struct traits *traits; /* per input */
};

static const char *const role_names[] = {[ROLE_TOKENS] = "tokens",
                                         [ROLE_MASK] = "mask",
                                         [ROLE_POSITIONS] = "positions",
                                         [ROLE_PAST_LENGTH] = "past_length",
                                         [ROLE_TOTAL_LENGTH] = "total_length",
                                         [ROLE_STATE] = "state",
                                         [ROLE_GIVEN] = "given"};

role role_from_text(const char *text)
{
    for (role r = ROLE_TOKENS; r <= ROLE_GIVEN; r++)
        if (r != ROLE_STATE && strcmp(role_names[r], text) == 0)
            return r;
    return ROLE_NONE;
}

const struct state *state_of_input(const struct graph *g, uint32_t i)
{
    for (uint32_t s = 0; s < g->states.count; s++)
        if (g->states.at[s].input == i)
            return &g->states.at[s];
    return NULL;
}

static const struct node *input_node(const struct finder *f, uint32_t i)
{
    return graph_node(f->graph, f->graph->inputs.at[i].value);
}

/* ---- traits ------------------------------------------------------------------------------------------------------------ */

static void know_fixed(struct finder *f)
{
    const struct graph *g = f->graph;
    f->fixed = NEW_ARRAY(f->arena, bool, g->nodes.count + 1);
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        f->fixed[v] = n->op != OP_INPUT;
        for (uint32_t i = 0; i < n->operand_count; i++)
            f->fixed[v] = f->fixed[v] && f->fixed[n->operand[i]];
    }
}

/* Whole extent of the axis that gather v picks from; 0: it picks from what is no weight. */
static int64_t table_rows(const struct finder *f, const struct node *gather)
{
    int64_t rows = 0;
    if (!f->fixed[gather->operand[0]])
        return 0;
    if (gather->attribute.mode == GATHER_ZERO && gather->attribute.dims_count > 1) /* a part of the table */
        return dim_is_const(f->graph->dims, gather->attribute.dims[1], &rows) ? rows : 1;
    dim d = graph_node(f->graph, gather->operand[0])->shape[gather->attribute.axis];
    return dim_is_const(f->graph->dims, d, &rows) ? rows : 1;
}

static unsigned traits_of_pair(const struct finder *f, const struct node *u, value v, bool *follow)
{
    value other = u->operand[0] == v ? u->operand[1] : u->operand[0];
    bool known = f->fixed[other] || f->seen[other];
    switch ((int)u->op) {
    case OP_LT:
    case OP_LE:
        if (!known)
            return TRAIT_ORDER;
        for (const struct node *n = graph_node(f->graph, other);; n = graph_node(f->graph, n->operand[0])) {
            if (n->op == OP_CONSTANT) /* x < 0 is how negative indices are told; 0 < x a truth */
                return u->operand[0] == v ? 0 : TRAIT_TRUTH;
            if (n->op != OP_BROADCAST && n->op != OP_RESHAPE)
                return TRAIT_ORDER;
        }
    case OP_EQ:
    case OP_AND:
    case OP_OR:
    case OP_XOR:
        return TRAIT_TRUTH;
    case OP_DOT:
        *follow = known;
        return 0;
    default:
        *follow = known || !dtype_is_float(u->dtype);
        return *follow ? 0 : TRAIT_TRUTH; /* added to scores, or their factor */
    }
}

/* What use u of v says; *follow: and what becomes of u. */
static unsigned traits_of_use(const struct finder *f, const struct node *u, value v, struct traits *t, bool *follow)
{
    *follow = false;
    switch ((int)u->op) {
    case OP_CAST:
        *follow = u->dtype != DT_BOOL;
        return *follow ? 0 : TRAIT_TRUTH;
    case OP_GATHER: {
        int64_t rows = u->operand[1] == v ? table_rows(f, u) : 0;
        t->rows = rows > t->rows ? rows : t->rows;
        *follow = u->operand[1] != v;
        return *follow ? 0 : rows > 0 ? TRAIT_TABLE : TRAIT_PLACE;
    }
    case OP_SCATTER:
        return u->operand[1] == v ? TRAIT_PLACE : 0;
    case OP_SELECT:
        *follow = u->operand[0] != v;
        return *follow ? 0 : TRAIT_TRUTH;
    case OP_NOT:
        return TRAIT_TRUTH;
    case OP_SIN:
    case OP_COS:
        return TRAIT_ANGLE;
    case OP_REDUCE_SUM:
    case OP_CUMSUM:
        return TRAIT_SUM;
    default:
        break;
    }
    if (u->operand_count == 2 && (op_info(u->op)->class == CLASS_POINTWISE || u->op == OP_DOT))
        return traits_of_pair(f, u, v, follow);
    op_class class = op_info(u->op)->class;
    *follow = class == CLASS_LAYOUT || class == CLASS_POINTWISE || class == CLASS_COLLECTIVE;
    return 0;
}

static struct traits traits_of(struct finder *f, value input)
{
    struct traits t = {0};
    LIST(value) work = {0};
    memset(f->seen, 0, f->graph->nodes.count * sizeof *f->seen);
    *PUSH(f->arena, &work) = input;
    f->seen[input] = true;
    for (uint32_t i = 0; i < work.count; i++) {
        value v = work.at[i];
        for (uint32_t k = f->uses.first[v]; k < f->uses.first[v + 1]; k++) {
            bool follow = false;
            value u = f->uses.use[k];
            t.set |= traits_of_use(f, graph_node(f->graph, u), v, &t, &follow);
            if (!follow || f->seen[u])
                continue;
            f->seen[u] = true;
            *PUSH(f->arena, &work) = u;
        }
    }
    return t;
}

/* ---- names: where structure leaves a question ----------------------------------------------------------------------- */

static const struct {
    const char *part; /* of the name, lower case */
    role role;
} shared_names[] = {
    {"input_ids", ROLE_TOKENS},
    {"token_ids", ROLE_TOKENS},
    {"tokens", ROLE_TOKENS},
    {"mask", ROLE_MASK},
    {"position", ROLE_POSITIONS},
    {"past_length", ROLE_PAST_LENGTH},
    {"past_seq", ROLE_PAST_LENGTH},
    {"past_len", ROLE_PAST_LENGTH},
    {"total_length", ROLE_TOTAL_LENGTH},
    {"total_seq", ROLE_TOTAL_LENGTH},
};

static role role_of_name(const char *name)
{
    for (size_t i = 0; i < sizeof shared_names / sizeof *shared_names; i++)
        if (strstr(name, shared_names[i].part) != NULL)
            return shared_names[i].role;
    return ROLE_NONE;
}

/* ---- tokens and logits ------------------------------------------------------------------------------------------------- */

static status find_logits(struct finder *f)
{
    const struct graph *g = f->graph;
    uint32_t found = UINT32_MAX;
    for (uint32_t i = g->outputs.count; i-- > 0;) {
        const struct node *n = graph_node(g, g->outputs.at[i].value);
        bool state = false;
        for (uint32_t s = 0; s < g->states.count; s++)
            state = state || g->states.at[s].output == i;
        if (state || (n->rank != 3 && n->rank != 2) || !dtype_is_float(n->dtype))
            continue;
        found = i;
        if (strstr(g->outputs.at[i].name, "logits"))
            break;
    }
    f->out->logits = found;
    if (found != UINT32_MAX)
        return TPC_OK;
    return diag_error(f->diag, TPC_UNSUPPORTED, NULL,
                      "cannot generate with this model: no output is logits (floats [batch, sequence, vocabulary])");
}

static bool may_be_tokens(const struct finder *f, uint32_t i)
{
    const struct node *n = input_node(f, i);
    return f->out->of[i] == ROLE_NONE && dtype_is_int(n->dtype) && n->rank == 2;
}

/* The one input for which `fits` holds; UINT32_MAX: none or several (*count says). */
static uint32_t only(const struct finder *f, bool (*fits)(const struct finder *f, uint32_t i), uint32_t *count)
{
    uint32_t found = UINT32_MAX;
    *count = 0;
    for (uint32_t i = 0; i < f->graph->inputs.count; i++)
        if (may_be_tokens(f, i) && fits(f, i)) {
            found = i;
            ++*count;
        }
    return *count == 1 ? found : UINT32_MAX;
}

/* It picks rows of a table that has one per logit. */
static bool picks_words(const struct finder *f, uint32_t i)
{
    const struct node *logits = graph_node(f->graph, f->graph->outputs.at[f->out->logits].value);
    return (f->traits[i].set & TRAIT_TABLE) &&
           dim_is(f->graph->dims, logits->shape[logits->rank - 1], f->traits[i].rows);
}

static bool picks_rows(const struct finder *f, uint32_t i)
{
    return (f->traits[i].set & TRAIT_TABLE) != 0 && !(f->traits[i].set & TRAITS_POSITION);
}

static bool called_decoders(const struct finder *f, uint32_t i)
{
    const char *name = f->graph->inputs.at[i].name;
    return strstr(name, "decoder") && role_of_name(name) == ROLE_TOKENS && (f->traits[i].set & TRAIT_TABLE);
}

static bool called_tokens(const struct finder *f, uint32_t i)
{
    return role_of_name(f->graph->inputs.at[i].name) == ROLE_TOKENS;
}

static status find_tokens(struct finder *f)
{
    bool (*const ways[])(const struct finder *f, uint32_t i) = {picks_words, picks_rows, called_decoders,
                                                                called_tokens};
    uint32_t count = 0;
    for (uint32_t i = 0; i < f->graph->inputs.count; i++)
        if (f->out->of[i] == ROLE_TOKENS) {
            f->out->tokens = i;
            f->out->vocabulary = f->traits[i].rows;
            return TPC_OK;
        }
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        uint32_t found = only(f, ways[k], &count);
        if (found == UINT32_MAX)
            continue;
        f->out->tokens = found;
        f->out->of[found] = ROLE_TOKENS;
        f->out->vocabulary = f->traits[found].rows;
        return TPC_OK;
    }
    struct text t = {.arena = f->arena};
    for (uint32_t i = 0; i < f->graph->inputs.count; i++)
        if (may_be_tokens(f, i))
            text_printf(&t, "%s'%s'", t.length ? ", " : "", f->graph->inputs.at[i].name);
    return diag_error(f->diag, TPC_UNSUPPORTED, NULL,
                      "cannot generate with this model: it does not show which input the tokens are%s%s; say --bind "
                      "INPUT=tokens, and give other inputs with --input",
                      t.length ? " among " : "", t.length ? t.at : "");
}

/* ---- the others -------------------------------------------------------------------------------------------------------- */

static role role_of_input(const struct finder *f, uint32_t i)
{
    const struct node *n = input_node(f, i);
    unsigned set = f->traits[i].set;
    role by_name = role_of_name(f->graph->inputs.at[i].name);
    bool few = n->rank == 0 || (n->rank == 1 && by_name != ROLE_POSITIONS && by_name != ROLE_NONE);
    if (few)
        return dtype_is_int(n->dtype) && (by_name == ROLE_PAST_LENGTH || by_name == ROLE_TOTAL_LENGTH) ? by_name
                                                                                                       : ROLE_NONE;
    bool numbers = dtype_is_int(n->dtype) && (n->rank == 1 || n->rank == 2);
    bool other_table = (set & TRAIT_TABLE) && f->traits[i].rows != f->out->vocabulary; /* else it is words too */
    bool position = (set & TRAITS_POSITION) || (other_table && !(set & TRAITS_MASK));
    bool mask = (set & TRAITS_MASK) && !position;
    if (position && numbers)
        return ROLE_POSITIONS;
    if (mask && n->rank == 2)
        return ROLE_MASK;
    if (by_name == ROLE_MASK)
        return n->rank == 2 ? ROLE_MASK : ROLE_NONE;
    return by_name == ROLE_POSITIONS && numbers && (other_table || !(set & TRAIT_TABLE)) ? ROLE_POSITIONS : ROLE_NONE;
}

static status not_known(const struct finder *f, uint32_t i)
{
    const char *name = f->graph->inputs.at[i].name;
    return diag_error(f->diag, TPC_UNSUPPORTED, NULL,
                      "cannot generate with this model: it does not show what input '%s' is for; say --bind "
                      "'%s=positions' (or mask, tokens, past_length, total_length), or give it with --input",
                      name, name);
}

static bool is_given(const struct finder *f, uint32_t i)
{
    return f->o->given && f->o->given[i].dtype != DT_NONE;
}

/* Can the input be filled so? */
static bool role_fits(const struct finder *f, uint32_t i, role r)
{
    const struct node *n = input_node(f, i);
    if (r == ROLE_GIVEN)
        return is_given(f, i);
    if (r == ROLE_MASK)
        return n->rank == 2;
    uint32_t least = r == ROLE_TOKENS ? 2 : r == ROLE_POSITIONS ? 1 : 0;
    return dtype_is_int(n->dtype) && n->rank >= least && n->rank <= 2;
}

static status take_bindings(struct finder *f)
{
    for (size_t b = 0; b < f->o->binding_count; b++) {
        const struct role_binding *binding = &f->o->binding[b];
        uint32_t found = UINT32_MAX;
        for (uint32_t i = 0; i < f->graph->inputs.count; i++)
            if (strcmp(f->graph->inputs.at[i].name, binding->input) == 0)
                found = i;
        if (found == UINT32_MAX)
            return diag_error(f->diag, TPC_USAGE, NULL, "the model has no input '%s' to be bound", binding->input);
        if (state_of_input(f->graph, found))
            return diag_error(f->diag, TPC_USAGE, NULL, "input '%s' is a state and cannot be bound", binding->input);
        const struct node *n = input_node(f, found);
        if (!role_fits(f, found, binding->role))
            return diag_error(f->diag, TPC_USAGE, NULL, "input '%s' (%s, %u axes) cannot be %s", binding->input,
                              dtype_name(n->dtype), (unsigned)n->rank, role_names[binding->role]);
        f->out->of[found] = binding->role;
    }
    return TPC_OK;
}

/* Is the mask's last axis one that a given input has, and not the tokens'? An encoder's. */
static bool of_given_places(const struct finder *f, uint32_t mask)
{
    const struct node *m = input_node(f, mask), *tokens = input_node(f, f->out->tokens);
    dim places = m->shape[m->rank - 1];
    if (dim_is_const(f->graph->dims, places, NULL) || places == tokens->shape[1] || places == tokens->shape[0])
        return false;
    for (uint32_t i = 0; i < f->graph->inputs.count; i++)
        for (uint32_t a = 0; f->out->of[i] == ROLE_GIVEN && a < input_node(f, i)->rank; a++)
            if (input_node(f, i)->shape[a] == places)
                return true;
    return false;
}

static void note_traits(struct finder *f)
{
    struct roles *r = f->out;
    for (uint32_t i = 0; i < f->graph->inputs.count; i++) {
        r->states = r->states || r->of[i] == ROLE_STATE;
        const struct node *n = input_node(f, i);
        bool each = n->rank == 2 && !dim_is(f->graph->dims, n->shape[0], 1);
        r->positions = r->positions || (r->of[i] == ROLE_POSITIONS && each);
        r->whole[i] = r->of[i] == ROLE_MASK && of_given_places(f, i);
        if (r->of[i] != ROLE_MASK || r->whole[i])
            continue;
        r->mask = true;
        r->mask_by_place = r->mask_by_place || (f->traits[i].set & TRAIT_TRUTH) != 0 || !f->traits[i].set;
        r->mask_summed = r->mask_summed || (f->traits[i].set & TRAIT_SUM) != 0;
    }
}

static status find_roles(struct finder *f)
{
    const struct graph *g = f->graph;
    status s = take_bindings(f);
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        f->traits[i] = traits_of(f, g->inputs.at[i].value);
        if (f->out->of[i] == ROLE_NONE && !f->o->given_last && is_given(f, i))
            f->out->of[i] = ROLE_GIVEN;
        else if (f->out->of[i] == ROLE_NONE && state_of_input(g, i))
            f->out->of[i] = ROLE_STATE;
    }
    if (s == TPC_OK)
        s = find_logits(f);
    if (s == TPC_OK)
        s = find_tokens(f);
    for (uint32_t i = 0; i < g->inputs.count && s == TPC_OK; i++) {
        if (f->out->of[i] != ROLE_NONE)
            continue;
        value v = g->inputs.at[i].value;
        bool read = f->uses.first[v] != f->uses.first[v + 1];
        f->out->of[i] = read ? role_of_input(f, i) : ROLE_UNUSED;
        if ((f->out->of[i] == ROLE_NONE || !read) && is_given(f, i))
            f->out->of[i] = ROLE_GIVEN;
        if (f->out->of[i] == ROLE_NONE)
            s = not_known(f, i);
    }
    if (s == TPC_OK)
        note_traits(f);
    return s;
}

status roles_find(const struct plan *plan, const struct generate_options *o, struct arena *arena, struct diag *diag,
                  struct roles *out)
{
    const struct graph *g = plan->program->graph;
    struct finder f = {.plan = plan, .graph = g, .o = o, .arena = arena, .diag = diag, .out = out};
    *out = (struct roles){.of = NEW_ARRAY(arena, role, g->inputs.count + 1),
                          .whole = NEW_ARRAY(arena, bool, g->inputs.count + 1),
                          .tokens = UINT32_MAX};
    f.uses = graph_uses(g, arena);
    f.seen = NEW_ARRAY(arena, bool, g->nodes.count + 1);
    f.traits = NEW_ARRAY(arena, struct traits, g->inputs.count + 1);
    know_fixed(&f);
    return find_roles(&f);
}

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

int64_t generate_vocabulary(const struct plan *plan, const struct generate_options *o, struct arena *arena)
{
    struct diag quiet = {.sink = swallow};
    struct roles roles;
    (void)roles_find(plan, o, arena, &quiet, &roles); /* what else is wrong is said later */
    return roles.vocabulary;
}
