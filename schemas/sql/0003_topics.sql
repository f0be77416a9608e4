-- Topics: events that are published, in the one log beside the changes of documents, and read from it in the same order.
--
-- An event is a row of `raystream.changes` that no trigger wrote: `op` 'p', `ptr` 'topic:' and the topic's name, `id` its own,
-- `version` 0, `after` the event. A topic is nothing but its name, so there is no table of topics.

-- So no change of a table is taken for an event.
ALTER TABLE raystream.storage ADD CONSTRAINT ptr_is_no_topic CHECK (ptr NOT LIKE 'topic:%');
