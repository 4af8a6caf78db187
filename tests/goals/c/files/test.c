#include "queue.h"

#include <stdio.h>

int main(void)
{
    struct queue queue = {0};
    int item = 0;
    for (int round = 0; round < 3; round++) {
        for (int n = 0; n < QUEUE_ROOM; n++)
            if (!queue_put(&queue, n))
                return puts("no room"), 1;
        if (queue_put(&queue, 99))
            return puts("too much room"), 1;
        for (int n = 0; n < QUEUE_ROOM - 1; n++)
            if (!queue_take(&queue, &item) || item != n)
                return puts("wrong order"), 1;
        if (!queue_take(&queue, &item) || queue_take(&queue, &item))
            return puts("wrong end"), 1;
        /* So that the next round begins elsewhere. */
        if (!queue_put(&queue, 0) || !queue_take(&queue, &item))
            return puts("wrong shift"), 1;
    }
    return 0;
}
