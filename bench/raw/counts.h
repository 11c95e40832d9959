/* Counts per key id: an open-addressing table of integers, the cheapest a counting loop can have. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct entry {
        uint64_t key, count; /* count 0 = free */
};
static struct {
        struct entry *entries;
        size_t mask, used;
} counts;

static struct entry *counts_slot(uint64_t key) {
        /* Fibonacci hashing; ids are dense, so that the high bits of the product spread well. */
        size_t at = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 20) & counts.mask;
        while (counts.entries[at].count && counts.entries[at].key != key)
                at = (at + 1) & counts.mask;
        return &counts.entries[at];
}

static void counts_resize(size_t capacity) {
        struct entry *old = counts.entries;
        size_t slots      = old ? counts.mask + 1 : 0;
        counts.entries    = calloc(capacity, sizeof(*counts.entries));
        if (!counts.entries)
                abort();
        counts.mask = capacity - 1;
        for (size_t i = 0; i < slots; i++)
                if (old[i].count)
                        *counts_slot(old[i].key) = old[i];
        free(old);
}

static uint64_t counts_increment(uint64_t key) {
        struct entry *entry = counts_slot(key);
        if (!entry->count) {
                entry->key = key;
                if (++counts.used * 2 > counts.mask) {
                        entry->count = 1;
                        counts_resize((counts.mask + 1) * 2);
                        return 1;
                }
        }
        return ++entry->count;
}
