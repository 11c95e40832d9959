/*
 * The raw loop: what a program costs that calls librdkafka by hand and does nothing else. It is the yardstick that the
 * engine is divided by, so it takes every liberty that keeps the same guarantees: one thread, batches of
 * messages, cached topic handles, the output partition taken from the input partition, counts in a flat table of
 * integers.
 *
 * It reads the same environment and prints the same MARK lines as the engine (see README.md). Beyond those:
 *   DR       errors  only failed deliveries are reported (default)
 *            all     every delivery is an event; the changelog's offset is taken from each message
 *            batch   every delivery is an event; the offset is first + count - 1 of each event, messages untouched
 *            list    as errors, and one ListOffsets for the changelog at each commit
 *   QUEUE    consumer  the one queue of the consumer (default: queued.min.messages then bounds all partitions together,
 *            which spares memory and cache);  partition  one queue per partition
 *   FULL     sleep  at BACKLOG messages in flight, wait a millisecond (default);  block  let producev wait
 *   BACKLOG  messages in flight at most (default 30000; for p2 10000: its many small messages are walked over three times
 *            on their way out, which is cheap only while they stay in the processor's cache)
 *   QUEUED   queued.min.messages of the consumer (default 100000)
 */
#define _POSIX_C_SOURCE 200809L
#include "counts.h"

#include <rdkafka.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PARTITIONS_MAX = 64, BATCH = 1000, TIMEOUT_MS = 60000, LINGER_AFTER_END_MS = 200 };

enum workload { CONSUME, P1, P2 };
enum reports { REPORT_ERRORS, REPORT_ALL, REPORT_BATCH, REPORT_LIST };

static struct {
        const char *bootstrap, *app_id, *in, *out, *changelog;
        enum workload workload;
        enum reports reports;
        bool eos, partition_queues, block;
        int64_t commit_ms;
        int backlog;
} conf;

static rd_kafka_t *consumer, *producer;
static rd_kafka_topic_t *out, *changelog;
static rd_kafka_queue_t *events;
static int partitions;
/* Positions in IN, and the end at which the run stops: next offset, per partition. */
static int64_t position[PARTITIONS_MAX], end[PARTITIONS_MAX];
/* Next offset of the changelog, per partition, as far as it has been learnt. */
static int64_t logged[PARTITIONS_MAX];
static int64_t total, processed, failed;
static int next_tenth;
/* Read so that the compiler cannot drop the reading of records. */
static uint64_t sink;

/* ---- small things ---------------------------------------------------------------------------------------------- */

static void die(const char *format, ...) {
        va_list args;
        va_start(args, format);
        fprintf(stderr, "raw: ");
        vfprintf(stderr, format, args);
        fprintf(stderr, "\n");
        va_end(args);
        exit(1);
}

static void check(rd_kafka_resp_err_t err, const char *what) {
        if (err)
                die("%s: %s", what, rd_kafka_err2str(err));
}

static void check_error(rd_kafka_error_t *error, const char *what) {
        if (error)
                die("%s: %s", what, rd_kafka_error_string(error));
}

static int64_t now_ms(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(long ms) {
        struct timespec t = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&t, NULL);
}

static void mark(const char *name, int64_t n) {
        printf("MARK %s %" PRId64 "\n", name, n);
        fflush(stdout);
}

static const char *env(const char *name, const char *otherwise) {
        const char *value = getenv(name);
        if (value && *value)
                return value;
        if (!otherwise)
                die("%s is not set", name);
        return otherwise;
}

static int64_t env_number(const char *name, const char *otherwise) {
        const char *value = env(name, otherwise);
        char *rest;
        long long n = strtoll(value, &rest, 10);
        if (*rest || n < 0)
                die("%s is '%s': not a whole number of 0 or more", name, value);
        return n;
}

/* The index of `name`'s value among `accepted`, which ends with NULL and whose first entry is the default. */
static int env_choice(const char *name, const char *const *accepted) {
        const char *value = env(name, accepted[0]);
        for (int i = 0; accepted[i]; i++)
                if (!strcmp(value, accepted[i]))
                        return i;
        fprintf(stderr, "raw: %s is '%s'; accepted:", name, value);
        for (int i = 0; accepted[i]; i++)
                fprintf(stderr, " %s", accepted[i]);
        fprintf(stderr, "\n");
        exit(1);
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static void set(rd_kafka_conf_t *c, const char *name, const char *value) {
        char error[512];
        if (rd_kafka_conf_set(c, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
                die("%s=%s: %s", name, value, error);
}

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
        (void)rk, (void)opaque;
        failed += m->err != 0;
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *c) {
        char error[512];
        set(c, "bootstrap.servers", conf.bootstrap);
        rd_kafka_t *rk = rd_kafka_new(type, c, error, sizeof(error));
        if (!rk)
                die("client: %s", error);
        return rk;
}

static void make_consumer(void) {
        rd_kafka_conf_t *c = rd_kafka_conf_new();
        set(c, "group.id", conf.app_id);
        set(c, "enable.auto.commit", "false");
        set(c, "enable.auto.offset.store", "false");
        set(c, "auto.offset.reset", "error");
        set(c, "isolation.level", "read_committed");
        set(c, "check.crcs", "true");
        set(c, "fetch.queue.backoff.ms", "10");
        set(c, "fetch.wait.max.ms", "100");
        set(c, "queued.min.messages", env("QUEUED", "100000"));
        consumer = client(RD_KAFKA_CONSUMER, c);
        check(rd_kafka_poll_set_consumer(consumer), "consumer queue");
}

static void make_producer(void) {
        char number[32];
        rd_kafka_conf_t *c = rd_kafka_conf_new();
        set(c, "enable.idempotence", "true");
        set(c, "acks", "all");
        set(c, "linger.ms", "5");
        set(c, "batch.size", "1000000");
        set(c, "retry.backoff.ms", "5");
        /* Backlog is checked once per batch of input, so that a batch's outputs may come on top. */
        snprintf(number, sizeof(number), "%d", conf.block ? conf.backlog : conf.backlog + 4 * BATCH);
        set(c, "queue.buffering.max.messages", number);
        if (conf.eos)
                set(c, "transactional.id", conf.app_id);
        if (conf.reports == REPORT_ALL || conf.reports == REPORT_BATCH) {
                rd_kafka_conf_set_events(c, RD_KAFKA_EVENT_DR);
        } else {
                set(c, "delivery.report.only.error", "true");
                rd_kafka_conf_set_dr_msg_cb(c, delivered);
        }
        producer = client(RD_KAFKA_PRODUCER, c);
        events   = rd_kafka_queue_get_main(producer);
        out      = rd_kafka_topic_new(producer, conf.out, NULL);
        if (!out)
                die("topic %s: %s", conf.out, rd_kafka_err2str(rd_kafka_last_error()));
}

static rd_kafka_event_t *await(rd_kafka_queue_t *queue, const char *what) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
        if (!event)
                die("%s: no answer within %d ms", what, TIMEOUT_MS);
        check(rd_kafka_event_error(event), what);
        return event;
}

static void make_changelog(void) {
        char error[512];
        size_t n                      = 0;
        rd_kafka_queue_t *queue       = rd_kafka_queue_new(producer);
        rd_kafka_NewTopic_t *topics[] = {rd_kafka_NewTopic_new(conf.changelog, partitions, 1, error, sizeof(error))};
        if (!topics[0])
                die("topic %s: %s", conf.changelog, error);
        check(rd_kafka_NewTopic_set_config(topics[0], "cleanup.policy", "compact"), "cleanup.policy");
        rd_kafka_CreateTopics(producer, topics, 1, NULL, queue);
        rd_kafka_event_t *event           = await(queue, "create changelog");
        const rd_kafka_topic_result_t **r = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
        if (n != 1 || rd_kafka_topic_result_error(r[0]))
                die("create topic %s: %s", conf.changelog, n == 1 ? rd_kafka_topic_result_error_string(r[0]) : "no result");
        rd_kafka_event_destroy(event);
        rd_kafka_NewTopic_destroy(topics[0]);
        rd_kafka_queue_destroy(queue);
        changelog = rd_kafka_topic_new(producer, conf.changelog, NULL);
        if (!changelog)
                die("topic %s: %s", conf.changelog, rd_kafka_err2str(rd_kafka_last_error()));
}

static void find_input(void) {
        const rd_kafka_metadata_t *metadata;
        rd_kafka_topic_t *topic = rd_kafka_topic_new(consumer, conf.in, NULL);
        check(rd_kafka_metadata(consumer, 0, topic, &metadata, TIMEOUT_MS), "metadata");
        check(metadata->topics[0].err, conf.in);
        partitions = metadata->topics[0].partition_cnt;
        if (partitions < 1 || partitions > PARTITIONS_MAX)
                die("topic %s has %d partitions; accepted: 1 to %d", conf.in, partitions, PARTITIONS_MAX);
        for (int p = 0; p < partitions; p++) {
                check(rd_kafka_query_watermark_offsets(consumer, conf.in, p, &position[p], &end[p], TIMEOUT_MS), "end of input");
                total += end[p] - position[p];
        }
        if (total < 10)
                die("topic %s has %" PRId64 " records; 10 are the least", conf.in, total);
        rd_kafka_metadata_destroy(metadata);
        rd_kafka_topic_destroy(topic);
}

/* ---- the record path --------------------------------------------------------------------------------------------- */

static inline void produce(rd_kafka_topic_t *topic, const rd_kafka_message_t *m, const void *value, size_t len, void *opaque) {
        const int flags = RD_KAFKA_MSG_F_COPY | (conf.block ? RD_KAFKA_MSG_F_BLOCK : 0);
        rd_kafka_resp_err_t err =
            rd_kafka_producev(producer, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(m->partition),
                              RD_KAFKA_V_MSGFLAGS(flags), RD_KAFKA_V_KEY(m->key, m->key_len),
                              RD_KAFKA_V_VALUE((void *)value, len), RD_KAFKA_V_OPAQUE(opaque),
                              RD_KAFKA_V_TIMESTAMP(rd_kafka_message_timestamp(m, NULL)), RD_KAFKA_V_END);
        if (err)
                die("produce to %s: %s", rd_kafka_topic_name(topic), rd_kafka_err2str(err));
}

static inline void process(const rd_kafka_message_t *m) {
        if (m->err)
                die("consume: %s", rd_kafka_message_errstr(m));
        switch (conf.workload) {
        case CONSUME:
                sink += *(const uint8_t *)m->payload + *(const uint8_t *)m->key;
                break;
        case P1:
                produce(out, m, m->payload, m->len, NULL);
                break;
        case P2: {
                uint64_t id;
                if (m->key_len != sizeof(id))
                        die("a key of %zu bytes in %s; accepted: 8", m->key_len, conf.in);
                memcpy(&id, m->key, sizeof(id));
                uint64_t count = __builtin_bswap64(counts_increment(__builtin_bswap64(id)));
                produce(changelog, m, &count, sizeof(count), &logged[m->partition]);
                produce(out, m, &count, sizeof(count), NULL);
                break;
        }
        }
        position[m->partition] = m->offset + 1;
}

/* Takes what the main queue holds, waiting `timeout_ms` for the first event. */
static void serve(int timeout_ms) {
        if (conf.reports == REPORT_ERRORS || conf.reports == REPORT_LIST) {
                rd_kafka_poll(producer, timeout_ms);
                return;
        }
        rd_kafka_event_t *event;
        for (; (event = rd_kafka_queue_poll(events, timeout_ms)); timeout_ms = 0) {
                /* Before the first message is taken: taking one lowers it. */
                const int64_t count = (int64_t)rd_kafka_event_message_count(event);
                const rd_kafka_message_t *m;
                while ((m = rd_kafka_event_message_next(event))) {
                        /* An event holds one acknowledged batch: one partition, one error, offsets in a row. */
                        const int64_t here = conf.reports == REPORT_BATCH ? count : 1;
                        if (m->err)
                                failed += here;
                        else if (m->_private)
                                *(int64_t *)m->_private = m->offset + here;
                        if (conf.reports == REPORT_BATCH)
                                break;
                }
                rd_kafka_event_destroy(event);
        }
}

static void list_offsets(void) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
        rd_kafka_queue_t *queue               = rd_kafka_queue_new(producer);
        size_t n;
        for (int p = 0; p < partitions; p++)
                rd_kafka_topic_partition_list_add(list, conf.changelog, p)->offset = RD_KAFKA_OFFSET_SPEC_LATEST;
        rd_kafka_ListOffsets(producer, list, NULL, queue);
        rd_kafka_event_t *event                 = await(queue, "list offsets");
        const rd_kafka_ListOffsetsResultInfo_t **infos =
            rd_kafka_ListOffsets_result_infos(rd_kafka_event_ListOffsets_result(event), &n);
        for (size_t i = 0; i < n; i++) {
                const rd_kafka_topic_partition_t *at = rd_kafka_ListOffsetsResultInfo_topic_partition(infos[i]);
                check(at->err, "list offsets");
                logged[at->partition] = at->offset;
        }
        rd_kafka_event_destroy(event);
        rd_kafka_queue_destroy(queue);
        rd_kafka_topic_partition_list_destroy(list);
}

/* Waits until everything produced is acknowledged. */
static void drain(void) {
        if (conf.reports == REPORT_ERRORS || conf.reports == REPORT_LIST) {
                check(rd_kafka_flush(producer, TIMEOUT_MS), "flush");
        } else {
                /* With events, rd_kafka_flush waits for reports that nobody but this thread takes. */
                for (int64_t give_up = now_ms() + TIMEOUT_MS; rd_kafka_outq_len(producer) > 0;) {
                        serve(1);
                        if (now_ms() > give_up)
                                die("%d messages not acknowledged within %d ms", rd_kafka_outq_len(producer), TIMEOUT_MS);
                }
        }
        if (failed)
                die("%" PRId64 " messages were not delivered", failed);
}

static void commit(bool last) {
        if (producer)
                drain();
        if (conf.reports == REPORT_LIST && changelog)
                list_offsets();
        rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(partitions);
        for (int p = 0; p < partitions; p++)
                rd_kafka_topic_partition_list_add(offsets, conf.in, p)->offset = position[p];
        if (conf.eos && producer) {
                rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(consumer);
                check_error(rd_kafka_send_offsets_to_transaction(producer, offsets, group, TIMEOUT_MS), "send offsets");
                check_error(rd_kafka_commit_transaction(producer, TIMEOUT_MS), "commit transaction");
                if (!last)
                        check_error(rd_kafka_begin_transaction(producer), "begin transaction");
                rd_kafka_consumer_group_metadata_destroy(group);
        } else {
                check(rd_kafka_commit(consumer, offsets, !last), "commit offsets");
        }
        rd_kafka_topic_partition_list_destroy(offsets);
}

static void progress(int64_t n) {
        static const char *const tenths[] = {"p10", "p20", "p30", "p40", "p50", "p60", "p70", "p80", "p90"};
        if (!processed)
                mark("first", n);
        processed += n;
        while (next_tenth < 9 && processed >= total / 10 * (next_tenth + 1))
                mark(tenths[next_tenth++], processed);
}

static void run(void) {
        static rd_kafka_message_t *batch[BATCH];
        rd_kafka_queue_t *queues[PARTITIONS_MAX];
        int queue_count = conf.partition_queues ? partitions : 1;

        rd_kafka_topic_partition_list_t *assignment = rd_kafka_topic_partition_list_new(partitions);
        for (int p = 0; p < partitions; p++) {
                rd_kafka_topic_partition_list_add(assignment, conf.in, p)->offset = position[p];
                if (conf.partition_queues) {
                        /* Before assign: a queue that the application has forwarded stays as it is. */
                        queues[p] = rd_kafka_queue_get_partition(consumer, conf.in, p);
                        rd_kafka_queue_forward(queues[p], NULL);
                }
        }
        if (!conf.partition_queues)
                queues[0] = rd_kafka_queue_get_consumer(consumer);
        check(rd_kafka_assign(consumer, assignment), "assign");
        rd_kafka_topic_partition_list_destroy(assignment);

        int64_t next_commit = now_ms() + conf.commit_ms;
        /* How often in a row nothing was there; the next queue may then be waited on. */
        int idle = 0;
        for (int q = 0; processed < total; q = (q + 1) % queue_count) {
                /* Inputs are all behind the same connection, so that a millisecond on one queue delays none of them. */
                ssize_t n = rd_kafka_consume_batch_queue(queues[q], idle >= queue_count ? 1 : 0, batch, BATCH);
                if (n < 0)
                        die("consume: %s", rd_kafka_err2str(rd_kafka_last_error()));
                idle = n ? 0 : idle + 1;
                if (!n && idle < queue_count)
                        continue;
                for (ssize_t i = 0; i < n; i++) {
                        process(batch[i]);
                        rd_kafka_message_destroy(batch[i]);
                }
                if (n)
                        progress(n);
                if (producer) {
                        serve(0);
                        while (!conf.block && rd_kafka_outq_len(producer) >= conf.backlog)
                                serve(1);
                }
                int64_t now = now_ms();
                if (now >= next_commit && processed < total) {
                        commit(false);
                        next_commit = now_ms() + conf.commit_ms;
                }
                /* Errors of the consumer arrive here when partitions have queues of their own. */
                if (conf.partition_queues && idle) {
                        rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer, 0);
                        if (m) {
                                if (m->err)
                                        die("consumer: %s", rd_kafka_message_errstr(m));
                                rd_kafka_message_destroy(m);
                        }
                }
        }
        mark("processed", processed);
        commit(true);
        mark("committed", processed);
        for (int q = 0; q < queue_count; q++)
                rd_kafka_queue_destroy(queues[q]);
}

static void read_environment(void) {
        static const char *const workloads[] = {"consume", "p1", "p2", NULL};
        static const char *const reports[]   = {"errors", "all", "batch", "list", NULL};
        static const char *const queues[]    = {"consumer", "partition", NULL};
        static const char *const full[]      = {"sleep", "block", NULL};
        static char changelog_name[256];

        conf.bootstrap        = env("BOOTSTRAP", NULL);
        conf.app_id           = env("APP_ID", NULL);
        conf.in               = env("IN", NULL);
        conf.workload         = env_choice("WORKLOAD", workloads);
        conf.out              = conf.workload == CONSUME ? "" : env("OUT", NULL);
        conf.eos              = env_number("EOS", "0") != 0;
        conf.commit_ms        = env_number("COMMIT_MS", "1000");
        conf.reports          = env_choice("DR", reports);
        conf.partition_queues = env_choice("QUEUE", queues) == 1;
        conf.block            = env_choice("FULL", full);
        conf.backlog          = (int)env_number("BACKLOG", conf.workload == P2 ? "10000" : "30000");
        if (conf.block && (conf.reports == REPORT_ALL || conf.reports == REPORT_BATCH))
                die("FULL=block with DR=all or DR=batch would wait for reports that nobody takes");
        snprintf(changelog_name, sizeof(changelog_name), "%s-count-changelog", conf.app_id);
        conf.changelog = changelog_name;
}

int main(void) {
        mark("main", 0);
        read_environment();
        make_consumer();
        find_input();
        if (conf.workload != CONSUME)
                make_producer();
        if (conf.workload == P2) {
                make_changelog();
                counts_resize(1 << 16);
        }
        if (producer && conf.eos) {
                check_error(rd_kafka_init_transactions(producer, TIMEOUT_MS), "init transactions");
                check_error(rd_kafka_begin_transaction(producer), "begin transaction");
        }
        run();
        if (changelog && conf.reports != REPORT_ERRORS)
                for (int p = 0; p < partitions; p++)
                        fprintf(stderr, "raw: %s-%d ends at %" PRId64 "\n", conf.changelog, p, logged[p]);
        /* The last marks are read from outside while this process still exists. */
        sleep_ms(LINGER_AFTER_END_MS);
        if (out)
                rd_kafka_topic_destroy(out);
        if (changelog)
                rd_kafka_topic_destroy(changelog);
        if (producer) {
                rd_kafka_queue_destroy(events);
                rd_kafka_destroy(producer);
        }
        rd_kafka_consumer_close(consumer);
        rd_kafka_destroy(consumer);
        return sink == UINT64_MAX;
}
