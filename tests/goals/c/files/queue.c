#include "queue.h"

bool queue_put(struct queue *queue, int item)
{
    if (queue->count > QUEUE_ROOM)
        return false;
    queue->items[queue->first + queue->count] = item;
    queue->count++;
    return true;
}

bool queue_take(struct queue *queue, int *item)
{
    if (queue->count == 0)
        return false;
    *item = queue->items[queue->first];
    queue->first = (queue->first + 1) % QUEUE_ROOM;
    queue->count--;
}
