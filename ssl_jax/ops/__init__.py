"""Pure operations on arrays that several parts use: masks, queues, assignments, clusters, patches, colours, schedules."""
