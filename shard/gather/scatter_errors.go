package gather

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
)

// ShardError is the failure of one shard. Unwrap gives its cause.
type ShardError struct {
	Shard *shard.Shard
	Err   error
}

func (e ShardError) Error() string { return fmt.Sprintf("shard %s: %v", e.Shard.Name, e.Err) }

// Unwrap returns Err.
func (e ShardError) Unwrap() error { return e.Err }

// NodeError is the failure of one call of [ScatterNodes]. The [ShardError] of each
// shard that the call was for holds the same one. Unwrap gives its cause.
type NodeError struct {
	Node string
	Err  error
}

func (e *NodeError) Error() string { return fmt.Sprintf("node %s: %v", e.Node, e.Err) }

// Unwrap returns Err.
func (e *NodeError) Unwrap() error { return e.Err }

// PartialError is returned by [Scatter] and [ScatterNodes] when too few shards
// answered, and is the last element of a [Stream] that lacks anything.
// [errors.Is] and [errors.As] see the causes of all that failed.
type PartialError struct {
	// Failed are the shards that failed of themselves. The calls that ended because
	// another failed are not among them.
	Failed []ShardError

	// Missing are the parts of the ring without an answer, in ring order, adjoining
	// ones joined. If Torn, they are the shards of which a row may be missing: all
	// that were not read to their end.
	Missing []shard.Range

	// Asked is the number of shards that the call was for, Answered of those that
	// are not Missing.
	Asked, Answered int

	// Torn says that a stream broke off after it had rows of the shard that failed.
	// What it yielded is right, and it ended before it was complete. It is never set by
	// Scatter and ScatterNodes.
	Torn bool
}

// Error names the first three failures, the shards of one call as one, and counts
// the others.
func (e *PartialError) Error() string {
	text := fmt.Sprintf("gather: %d of %d shards answered", e.Answered, e.Asked)
	if e.Torn {
		text = fmt.Sprintf("gather: torn stream: %d of %d shards were read to the end", e.Answered, e.Asked)
	}
	separator, named, more := ": ", 0, 0
	for i := 0; i < len(e.Failed); {
		shards := e.sameCall(i)
		switch {
		case named == 3:
			more++
		case shards > 1:
			text += fmt.Sprintf("%s%v (%d shards)", separator, e.Failed[i].Err, shards)
			named++
		default:
			text += separator + e.Failed[i].Error()
			named++
		}
		separator = "; "
		i += shards
	}
	if more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// sameCall is how many failures, from number i on, are of one call.
func (e *PartialError) sameCall(i int) int {
	of, ok := e.Failed[i].Err.(*NodeError)
	if !ok {
		return 1
	}
	n := 1
	for ; i+n < len(e.Failed); n++ {
		if other, ok := e.Failed[i+n].Err.(*NodeError); !ok || other != of {
			break
		}
	}
	return n
}

// Unwrap returns the [ShardError] values of Failed.
func (e *PartialError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f
	}
	return errs
}

// PanicError is what [Scatter], [ScatterNodes] and [Stream] panic with, on the
// caller's goroutine, when a call panicked on its own.
type PanicError struct {
	Shard *shard.Shard // of a node, the first that was asked for
	Value any          // what the call panicked with
	Stack []byte       // where
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("gather: shard %s: panic: %v\n\n%s", e.Shard.Name, e.Value, e.Stack)
}

// Unwrap returns Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// joined puts ranges into ring order and joins those that adjoin. It changes its
// argument.
func joined(ranges []shard.Range) []shard.Range {
	slices.SortFunc(ranges, func(a, b shard.Range) int { return cmp.Compare(a.Start, b.Start) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && (out[n-1].End == 0 || r.Start <= out[n-1].End) {
			if last := &out[n-1]; last.End != 0 && (r.End == 0 || r.End > last.End) {
				last.End = r.End
			}
			continue
		}
		out = append(out, r)
	}
	return out
}
