package httpgather

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

var (
	// ErrNotAcceptable is returned by [Serve] when the client accepts neither NDJSON nor
	// JSON. It was answered with status 406.
	ErrNotAcceptable = errors.New("httpgather: the client accepts neither NDJSON nor JSON")

	// ErrReservedKey is returned by [Serve] for a row that would be taken for a
	// control record: a JSON object whose first key is $end, $error or $cursor.
	ErrReservedKey = errors.New("httpgather: row begins with the key of a control record")
)

// Options are the knobs of [Serve]. The zero value streams without checkpoints.
type Options[T any] struct {
	// FlushBytes is how many bytes are gathered before they are flushed. 0 means 8192.
	FlushBytes int

	// FlushEvery is the longest time that a row waits to be flushed. 0 means 50 ms.
	FlushEvery time.Duration

	// Cursor returns the cursor of what follows a row, as [gather.Query.Cursor] does. With
	// it each flush ends in a checkpoint, from which a client may resume. nil means
	// none. It is called once a flush, with the last row, never twice at once, but
	// perhaps while the query runs on. Its error ends the stream, and so does an empty
	// cursor, which is that of the start.
	//
	// It is only for a query that is complete up to each row that it yields, such as
	// [gather.Query.All], or a [gather.Stream] without MinFraction: of a shard that was
	// left out, a client that resumes behind its rows never sees them.
	Cursor func(T) (string, error)

	// Next returns the cursor of the next page, for a response that is one page. It is
	// called when the query has ended well; empty means that there is none, and so
	// does nil.
	Next func() string

	// Public returns what a client is told of an error: a status from 400 to 599, which
	// is used if no row has been sent, and a message. A status of 0 and an empty message
	// stand for the default: of a [*gather.PartialError] 503 and that shards did not
	// answer, of a cursor that is bad or foreign 400, of [context.DeadlineExceeded] 503, and of
	// all others 500 and no more than "internal error". nil means the default. The missing
	// ranges of a PartialError are told in any case.
	Public func(error) (status int, message string)
}

func (o Options[T]) validate() error {
	switch {
	case o.FlushBytes < 0:
		return fmt.Errorf("httpgather: Options.FlushBytes is %d, expected 0 or more", o.FlushBytes)
	case o.FlushEvery < 0:
		return fmt.Errorf("httpgather: Options.FlushEvery is %v, expected 0 or more", o.FlushEvery)
	}
	return nil
}

// Serve runs a query and sends its rows as the response to r, in the form that the
// field Accept asks for: NDJSON (application/x-ndjson), also when it leaves the choice,
// or a JSON array (application/json). The header fields that were set before are sent as
// they are, without a Content-Length.
//
// The query is given a context that ends with r's, which is when the client has gone,
// and also when writing to it has failed. It must obey it; an end of the context
// counts as a failure of the query, whatever it yields then. Rows are encoded by
// [encoding/json] as they come, on the caller's goroutine. A row must stay as it is
// until the query ends if Options.Cursor is set.
//
// Serve returns nil if the client was sent a whole stream, and else, for the log, the
// error of the query as it is, that of writing, or one of [ErrNotAcceptable],
// [ErrReservedKey], that of a row that cannot be encoded, and that of an option out of its
// range. The client is told of it as Options.Public says, with a status of its own if
// no row has been sent. The request HEAD is answered without running the query. If the
// query panics, so does Serve, with the response cut short; a panic of Options.Cursor, of
// a row that marshals itself or of w arrives the same way.
//
// When Serve returns, the query has ended and nothing is left running. It sets no write
// deadline: a client that stops reading holds the query until [http.Server.WriteTimeout]
// or the like. It costs one call of [encoding/json] a row, and for each flush a
// timer at most. It is safe for concurrent use, for different requests.
func Serve[T any](w http.ResponseWriter, r *http.Request, query func(context.Context) iter.Seq2[T, error], o Options[T]) error {
	err := o.validate()
	if err == nil && query == nil {
		err = errors.New("httpgather: query is nil, expected a function")
	}
	if err != nil {
		return errors.Join(err, writeProblem(w, public(err, o.Public)))
	}
	w.Header().Add("Vary", "Accept")
	mediaType := negotiate(r.Header.Values("Accept"))
	if mediaType == "" {
		return errors.Join(ErrNotAcceptable, writeProblem(w, problem{Status: http.StatusNotAcceptable, Detail: "expected " + ndjsonType + " or " + jsonType}))
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := newSender(w, mediaType, o, cancel)
	defer s.close() // also when the query panics
	if r.Method == http.MethodHead {
		s.begin()
		return nil
	}

	err = s.sendRows(ctx, query(ctx))
	s.close()
	if s.panicked != nil {
		panic(s.panicked)
	}
	return s.finish(err)
}

// sendRows sends the rows until the query ends or something fails, and returns what
// did.
func (s *sender[T]) sendRows(ctx context.Context, rows iter.Seq2[T, error]) error {
	for row, err := range rows {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		if err := s.send(row); err != nil {
			return err
		}
	}
	// A query that stops without an error because its context ended is not whole.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
