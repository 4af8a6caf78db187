#ifndef QUEUE_H
#define QUEUE_H

#include <stdbool.h>

enum { QUEUE_ROOM = 4 };

/* First in, first out, at most QUEUE_ROOM numbers. */
struct queue {
    int items[QUEUE_ROOM];
    unsigned first, count;
};

/* False when there is no room. */
bool queue_put(struct queue *queue, int item);

/* False when there is nothing. */
bool queue_take(struct queue *queue, int *item);

#endif
