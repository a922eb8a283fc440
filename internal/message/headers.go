package message

// Names of the headers that Pawl writes. Names that begin with HeaderPrefix are Pawl's alone: on
// input they are never believed, from a handler they are dropped.
const (
	HeaderPrefix = "pawl-"

	HeaderSource = "pawl-source" // topic/partition/offset of the input
	HeaderID     = "pawl-id"     // UUIDv5 of what was made from it

	// On dead letters.
	HeaderReason  = "pawl-reason"  // a label from a closed set, such as bad_json
	HeaderError   = "pawl-error"   // one line for a person
	HeaderHandler = "pawl-handler" // name of the handler
	HeaderRedrive = "pawl-redrive" // how often this record has been redriven

	// On effects; the body is the value, the order key is the key.
	HeaderFormat      = "pawl-format"       // version of the record's format
	HeaderIndex       = "pawl-index"        // which of its input's entries this is
	HeaderTopicID     = "pawl-topic-id"     // of the input topic, 32 hex digits
	HeaderGeneration  = "pawl-generation"   // replay generation
	HeaderEndpoint    = "pawl-endpoint"     // name of the endpoint
	HeaderBusinessKey = "pawl-business-key" // only where the handler gave one
	HeaderClass       = "pawl-class"        // at-least-once or at-most-once
	HeaderContentType = "content-type"

	// On whatever comes of an input that has them (W3C Trace Context), see TraceOf.
	HeaderTrace = "traceparent"
	HeaderState = "tracestate"
)

// EffectFormat is the version of effect records that this release writes.
const EffectFormat = "1"
