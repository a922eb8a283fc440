package message

// Bounds of a trace context. What is longer is taken for none: it comes with the input, so that anybody may
// have written it.
const (
	TraceParentMax = 128 // bytes; version 00 has 55, later ones may have more
	TraceStateMax  = 512 // bytes, which is what W3C Trace Context asks everybody to pass on
)

// Trace is where a record stands in a distributed trace, in the form of W3C Trace Context. Nobody has checked
// that it has that form. The zero value is none.
type Trace struct {
	Parent []byte // value of HeaderTrace
	State  []byte // value of HeaderState; never without Parent
}

// TraceOf finds the trace context among headers, of this package or of a client library. It counts the first
// header of each name. It allocates nothing.
func TraceOf[H ~struct {
	Key   string
	Value []byte
}](headers []H) (trace Trace) {
	for i := range headers {
		switch h := Header(headers[i]); {
		case h.Key == HeaderTrace && trace.Parent == nil:
			trace.Parent = h.Value
		case h.Key == HeaderState && trace.State == nil:
			trace.State = h.Value
		}
	}
	if len(trace.Parent) == 0 || len(trace.Parent) > TraceParentMax {
		return Trace{}
	}
	if len(trace.State) == 0 || len(trace.State) > TraceStateMax {
		trace.State = nil
	}
	return trace
}

// IsTrace tells the names of headers of which an output inherits its input's, unless it has one of its own: a
// function of the record and the handler alone, so that a record that is done again has the same ones.
func IsTrace(name string) bool { return name == HeaderTrace || name == HeaderState }

// Sampled reports that whoever began the trace has it recorded.
func (t Trace) Sampled() bool { return IsSampled(t.Parent) }

// IsSampled reads that off a traceparent: it is the lowest bit of the flags.
func IsSampled[T string | []byte](parent T) bool {
	const flags = 54 // the second digit of theirs, in every version
	if len(parent) <= flags {
		return false
	}
	switch parent[flags] {
	case '1', '3', '5', '7', '9', 'b', 'd', 'f':
		return true
	default:
		return false
	}
}

// Len is the number of headers that the context takes.
func (t Trace) Len() int {
	switch {
	case t.State != nil:
		return 2
	case t.Parent != nil:
		return 1
	default:
		return 0
	}
}

// Size is a bound of the bytes that it takes in a record.
func (t Trace) Size() int {
	const around = 10 // the lengths of name and value
	return t.Len()*(around+len(HeaderTrace)) + len(t.Parent) + len(t.State)
}
