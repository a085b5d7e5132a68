package httpgather

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"

	"github.com/evenkeel-go/evenkeel/shard"
)

var (
	// ErrTorn is yielded by [Read] and [ReadBatches] when the response ends without the
	// record that says it is whole, or rows are missing from it. It wraps what reading
	// returned, if that was not the end.
	ErrTorn = errors.New("httpgather: torn stream")

	// ErrBadStream is yielded by [Read] and [ReadBatches] for what [Serve] does not
	// write, or a row that is no T.
	ErrBadStream = errors.New("httpgather: bad stream")

	// ErrTooLarge is yielded by [Read] and [ReadBatches] for a record, or a batch, above
	// its bound.
	ErrTooLarge = errors.New("httpgather: too large")
)

// RemoteError is yielded by [Read] and [ReadBatches] when the server says that it has
// failed.
type RemoteError struct {
	Status  int           // of the response: 200 if it failed after it had begun
	Message string        // what the server tells the public; empty if it said nothing
	Missing []shard.Range // the parts of the ring that did not answer, if it said so
	Resume  string        // where to go on, empty if it said nothing
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("httpgather: the server failed, status %d: %s", e.Status, cmp.Or(e.Message, "no reason given"))
}

// ReadOptions are the bounds of [Read] and [ReadBatches]. The zero value has the
// defaults.
type ReadOptions struct {
	// MaxRecord is the most bytes of a row or another record. 0 means 1 MiB.
	MaxRecord int

	// MaxBatch is the most bytes of the rows that wait for their checkpoint, for
	// ReadBatches. 0 means 16 MiB.
	MaxBatch int
}

func (o ReadOptions) validate() error {
	switch {
	case o.MaxRecord < 0:
		return fmt.Errorf("httpgather: ReadOptions.MaxRecord is %d, expected 0 or more", o.MaxRecord)
	case o.MaxBatch < 0:
		return fmt.Errorf("httpgather: ReadOptions.MaxBatch is %d, expected 0 or more", o.MaxBatch)
	}
	return nil
}

// Read yields the rows of a response of [Serve] as they arrive, decoded by
// [encoding/json]. If the sequence ends without an error, the rows are all there are.
//
// An error comes with a zero row, as the last element: [ErrTorn], [ErrBadStream],
// [ErrTooLarge], a [*RemoteError], also for a status that is not 200, or that of an
// option out of its range. The rows before it were right, and are not all. To go on after
// them use [ReadBatches].
//
// Read closes the body when the iteration ends, in whatever way. The sequence can be
// iterated once. A request whose context ends makes reading fail, which is ErrTorn that
// wraps the error of the context.
func Read[T any](res *http.Response, o ReadOptions) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for event, err := range events[T](res, o) {
			switch {
			case err != nil:
				yield(none, err)
				return
			case event.kind == rowEvent && !yield(event.row, nil):
				return
			}
		}
	}
}

// Batch is a run of rows with the cursor of what follows them.
type Batch[T any] struct {
	Rows []T

	// Cursor is where to go on after Rows: the cursor that the next request starts
	// from, if this response breaks off, or at its End if there is another page. It is
	// empty at the end of the last one.
	Cursor string

	// End says that this is the last batch of the response, which is whole.
	End bool
}

// ReadBatches is [Read] for responses with checkpoints ([Options.Cursor]): it yields
// rows only when their checkpoint, or the end, has arrived. A client that keeps what it
// makes of the rows and the cursor in one step, a transaction for example, and asks for
// what follows the last cursor after a failure, misses no row and sees none twice.
// Rows without a checkpoint, when a stream is torn, are dropped: they come again.
//
// The last batch of a whole response has End set, and may have no rows. Errors are those
// of Read; the rows that came before a RemoteError with its Resume are yielded first.
// Of a response without checkpoints there is one batch, at the end.
func ReadBatches[T any](res *http.Response, o ReadOptions) iter.Seq2[Batch[T], error] {
	return func(yield func(Batch[T], error) bool) {
		most := cmp.Or(o.MaxBatch, 16<<20)
		var rows []T
		size := 0
		for event, err := range events[T](res, o) {
			if err == nil && event.kind == rowEvent {
				rows = append(rows, event.row)
				if size += event.size; size > most {
					err = fmt.Errorf("%w: %d bytes without a checkpoint, expected up to %d", ErrTooLarge, size, most)
				}
			}
			if err != nil {
				remote, ok := errors.AsType[*RemoteError](err)
				if !ok || len(rows) == 0 || remote.Resume == "" || yield(Batch[T]{Rows: rows, Cursor: remote.Resume}, nil) {
					yield(Batch[T]{}, err)
				}
				return
			}
			if event.kind == rowEvent {
				continue
			}
			if !yield(Batch[T]{Rows: rows, Cursor: event.cursor, End: event.kind == endEvent}, nil) {
				return
			}
			rows, size = nil, 0
		}
	}
}

type eventKind uint8

const (
	rowEvent eventKind = iota
	cursorEvent
	endEvent
)

// event is a record that was understood. A failure that the server reports is an error.
type event[T any] struct {
	kind   eventKind
	row    T
	size   int
	cursor string // or that of the next page
}

// events yields the records of a response, up to its end, which it has verified.
func events[T any](res *http.Response, o ReadOptions) iter.Seq2[event[T], error] {
	return func(yield func(event[T], error) bool) {
		if res == nil || res.Body == nil {
			yield(event[T]{}, errors.New("httpgather: response is nil, expected one with a body"))
			return
		}
		defer res.Body.Close()
		if err := o.validate(); err != nil {
			yield(event[T]{}, err)
			return
		}
		records, err := splitterOf(res, cmp.Or(o.MaxRecord, 1<<20))
		if err != nil {
			yield(event[T]{}, err)
			return
		}
		rows := int64(0)
		for {
			e, err := nextEvent[T](records, rows)
			if err == nil && e.kind == endEvent {
				err = expectEnd(records)
			}
			if err != nil {
				yield(event[T]{}, orCancelled(res, err))
				return
			}
			if e.kind == rowEvent {
				rows++
			}
			if !yield(e, nil) || e.kind == endEvent {
				return
			}
		}
	}
}

// orCancelled returns err, or, if the request's context has ended, ErrTorn with the
// context's error: the server notices that the client has gone, and what it says of that
// can arrive before the transport has given up reading.
func orCancelled(res *http.Response, err error) error {
	if res.Request == nil {
		return err
	}
	cause := res.Request.Context().Err()
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w: %w", ErrTorn, cause, err)
}

// splitterOf returns what cuts the body into records, or the error that the response is.
func splitterOf(res *http.Response, most int) (splitter, error) {
	mediaType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK {
		return nil, remoteProblem(res, mediaType)
	}
	switch mediaType {
	case ndjsonType:
		return newLines(res.Body, most), nil
	case jsonType:
		return newArray(res.Body, most), nil
	}
	return nil, fmt.Errorf("%w: Content-Type is %q, expected %s or %s", ErrBadStream, res.Header.Get("Content-Type"), ndjsonType, jsonType)
}

// remoteProblem is the error that a response of another status is.
func remoteProblem(res *http.Response, mediaType string) error {
	var p problem
	if mediaType == problemType {
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		if err == nil {
			err = json.Unmarshal(body, &p)
		}
		if err != nil {
			p = problem{} // the status says enough
		}
	}
	err := remoteError(res.StatusCode, p.Detail, p.Missing, "")
	if errors.Is(err, ErrBadStream) { // the problem of a gateway, whose missing is something else
		err = remoteError(res.StatusCode, p.Detail, nil, "")
	}
	return err
}

func remoteError(status int, message string, missing []string, resume string) error {
	e := &RemoteError{Status: status, Message: message, Resume: resume}
	for _, text := range missing {
		r, err := shard.ParseRange(text)
		if err != nil {
			return fmt.Errorf("%w: missing: %w", ErrBadStream, err)
		}
		e.Missing = append(e.Missing, r)
	}
	return e
}

// nextEvent reads and understands one record, after so many rows.
func nextEvent[T any](records splitter, rows int64) (e event[T], err error) {
	record, err := records.next()
	if err == io.EOF {
		return e, fmt.Errorf("%w: no end after %d rows", ErrTorn, rows)
	}
	if err != nil {
		return e, err
	}
	if !isControl(record) {
		e.size = len(record)
		if err := json.Unmarshal(record, &e.row); err != nil {
			return e, fmt.Errorf("%w: row %d: %w", ErrBadStream, rows, err)
		}
		return e, nil
	}
	var c control
	if err := json.Unmarshal(record, &c); err != nil {
		return e, fmt.Errorf("%w: control record after row %d: %w", ErrBadStream, rows, err)
	}
	switch {
	case c.Error != nil:
		return e, remoteError(http.StatusOK, c.Error.Message, c.Error.Missing, c.Error.Resume)
	case c.Cursor != nil:
		return event[T]{kind: cursorEvent, cursor: *c.Cursor}, nil
	case c.End == nil:
		return e, fmt.Errorf("%w: empty control record after row %d", ErrBadStream, rows)
	case c.End.Rows != rows:
		return e, fmt.Errorf("%w: %d rows, expected the %d that were sent", ErrTorn, rows, c.End.Rows)
	}
	return event[T]{kind: endEvent, cursor: c.End.Next}, nil
}

// expectEnd verifies that nothing follows the record of the end.
func expectEnd(records splitter) error {
	_, err := records.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return fmt.Errorf("%w: a record after the end", ErrBadStream)
	}
	return err
}
