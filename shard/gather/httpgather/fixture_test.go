package httpgather_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard/gather/httpgather"
)

const (
	ndjson = "application/x-ndjson"
	array  = "application/json"
)

var errBoom = errors.New("boom: password is hunter2")

type row struct {
	ID   int
	Text string `json:",omitempty"`
}

// numbered yields rows from one ID up to and without another, and then fails with err if
// there is one.
func numbered(from, to int, err error) func(context.Context) iter.Seq2[row, error] {
	return func(context.Context) iter.Seq2[row, error] {
		return func(yield func(row, error) bool) {
			for id := from; id < to; id++ {
				if !yield(row{ID: id}, nil) {
					return
				}
			}
			if err != nil {
				yield(row{}, err)
			}
		}
	}
}

// byID is a cursor that one can read: the ID of the last row.
func byID(r row) (string, error) { return strconv.Itoa(r.ID), nil }

func request(accept string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/rows", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	return r
}

// record serves a query in memory.
func record[T any](accept string, query func(context.Context) iter.Seq2[T, error], o httpgather.Options[T]) (*http.Response, string, error) {
	w := httptest.NewRecorder()
	err := httpgather.Serve(w, request(accept), query, o)
	return w.Result(), w.Body.String(), err
}

func response(mediaType string, body io.Reader) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {mediaType}}, Body: io.NopCloser(body)}
}

func read[T any](mediaType string, body io.Reader) (rows []T, err error) {
	for r, e := range httpgather.Read[T](response(mediaType, body), httpgather.ReadOptions{}) {
		if e != nil {
			return rows, e
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// readBatches returns the rows that were handed on, the last cursor, and whether the
// end came.
func readBatches[T any](res *http.Response, o httpgather.ReadOptions) (rows []T, cursor string, end bool, err error) {
	for b, e := range httpgather.ReadBatches[T](res, o) {
		if e != nil {
			return rows, cursor, end, e
		}
		rows = append(rows, b.Rows...)
		cursor, end = b.Cursor, b.End
	}
	return rows, cursor, end, nil
}

// aStream draws rows and how they are flushed, and returns both with the body.
type aStream struct {
	mediaType string
	rows      []row
	cursors   bool
	body      string
}

func anyStream() *rapid.Generator[aStream] {
	return rapid.Custom(func(t *rapid.T) aStream {
		s := aStream{mediaType: rapid.SampledFrom([]string{ndjson, array}).Draw(t, "type"), cursors: rapid.Bool().Draw(t, "cursors")}
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`{"$end":{"rows":1}}`, "]\n", "\\\"", strings.Repeat("x", 300)}))
		for id := range rapid.IntRange(0, 12).Draw(t, "rows") {
			s.rows = append(s.rows, row{id, strings.ToValidUTF8(text.Draw(t, "text"), "")})
		}
		o := httpgather.Options[row]{FlushBytes: rapid.SampledFrom([]int{1, 50, 500, 0}).Draw(t, "flush")}
		if s.cursors {
			o.Cursor = byID
		}
		_, body, err := record(s.mediaType, func(context.Context) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				for _, r := range s.rows {
					if !yield(r, nil) {
						return
					}
				}
			}
		}, o)
		require.NoError(t, err)
		s.body = body
		return s
	})
}

// objects yields objects that have each text as their key.
func objects(texts ...string) func(context.Context) iter.Seq2[map[string]string, error] {
	return func(context.Context) iter.Seq2[map[string]string, error] {
		return func(yield func(map[string]string, error) bool) {
			for _, text := range texts {
				if !yield(map[string]string{text: text}, nil) {
					return
				}
			}
		}
	}
}
