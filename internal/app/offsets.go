package app

import "pawl/internal/txn"

// OffsetMetadata is the text to commit with an offset of the topic with this id, as the engine does
// it. What moves offsets without it hides from the preflight that a topic was made again.
func OffsetMetadata(topicID [16]byte) string { return txn.OffsetMetadata(topicID) }
