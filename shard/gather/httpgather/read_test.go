package httpgather_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather/httpgather"
)

func stringsReader(s string) io.Reader { return strings.NewReader(s) }

// What is served is read, in both forms, however the bytes arrive.
func TestReadReturnsWhatWasServed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyStream().Draw(t, "stream")
		body := stringsReader(s.body)
		if rapid.Bool().Draw(t, "byte by byte") {
			body = iotest.OneByteReader(body)
		}
		rows, err := read[row](s.mediaType, body)
		require.NoError(t, err)
		require.Equal(t, s.rows, rows)

		batched, cursor, end, err := readBatches[row](response(s.mediaType, stringsReader(s.body)), httpgather.ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, s.rows, batched)
		require.Empty(t, cursor, "there is no other page")
		require.True(t, end)
	})
}

// Cut anywhere, the stream is never whole: the rows are a prefix, and those of the
// batches are exactly the rows up to the last cursor.
func TestReadNeverTakesATornStreamForAWholeOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyStream().Draw(t, "stream")
		cut := s.body[:rapid.IntRange(0, len(s.body)-1).Draw(t, "cut")]
		rows, err := read[row](s.mediaType, stringsReader(cut))
		require.ErrorIs(t, err, httpgather.ErrTorn)
		require.True(t, slices.Equal(s.rows[:len(rows)], rows))

		batched, cursor, end, err := readBatches[row](response(s.mediaType, stringsReader(cut)), httpgather.ReadOptions{})
		require.ErrorIs(t, err, httpgather.ErrTorn)
		require.False(t, end)
		if !s.cursors || len(batched) == 0 {
			require.Empty(t, batched)
			require.Empty(t, cursor)
			return
		}
		require.Equal(t, s.rows[:len(batched)], batched)
		require.Equal(t, fmt.Sprint(batched[len(batched)-1].ID), cursor)
	})
}

func TestReadKeepsTheCauseOfATear(t *testing.T) {
	t.Parallel()
	for _, mediaType := range []string{ndjson, array} {
		for _, body := range []string{"", " ", "[", "[1", "[1,", "[{\"$end\":{\"rows\":0}}", "[{\"$end\":{\"rows\":0}}]"} {
			_, err := read[any](mediaType, io.MultiReader(stringsReader(body), iotest.ErrReader(io.ErrUnexpectedEOF)))
			require.ErrorIs(t, err, httpgather.ErrTorn, body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, body)
		}
	}
}

func TestReadRefusesWhatServeDoesNotWrite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mediaType, body string
		want            error
	}{
		{ndjson, "1\n{\"$end\":{\"rows\":2}}\n", httpgather.ErrTorn}, // a row went missing on the way
		{ndjson, "1\n{\"$end\":{\"rows\":1}}\n2\n", httpgather.ErrBadStream},
		{ndjson, "1\n{\"$end\":{\"rows\":1}}\n2", httpgather.ErrTorn},
		{ndjson, "1\n{\"$end\":null}\n", httpgather.ErrBadStream},
		{ndjson, "1\n{\"$end\":7}\n", httpgather.ErrBadStream},
		{ndjson, "nonsense\n", httpgather.ErrBadStream},
		{ndjson, "{\n", httpgather.ErrBadStream},
		{ndjson, "{\"$en\n", httpgather.ErrBadStream},
		{ndjson, "{\"\\u00zz\":1}\n", httpgather.ErrBadStream},
		{ndjson, "1 2\n", httpgather.ErrBadStream},
		{ndjson, "\"text\"\n", httpgather.ErrBadStream}, // is no int
		{ndjson, "{\"$error\":{\"missing\":[\"zz\"]}}\n", httpgather.ErrBadStream},
		{array, "{\"$end\":{\"rows\":0}}", httpgather.ErrBadStream},
		{array, "[]", httpgather.ErrTorn},
		{array, "[1]", httpgather.ErrTorn},
		{array, "[,{\"$end\":{\"rows\":0}}]", httpgather.ErrBadStream},
		{array, "[1,]", httpgather.ErrBadStream},
		{array, "[1 2,{\"$end\":{\"rows\":1}}]", httpgather.ErrBadStream},
		{array, "[{\"$end\":{\"rows\":0}},1]", httpgather.ErrBadStream},
		{array, "[{\"$end\":{\"rows\":0}}] 1", httpgather.ErrBadStream},
		{array, "[{\"$end\":{\"rows\":0}}},1]", httpgather.ErrTorn},
		{"text/html", "<html>", httpgather.ErrBadStream},
		{"", "1\n", httpgather.ErrBadStream},
	} {
		_, err := read[int](c.mediaType, stringsReader(c.body))
		require.ErrorIs(t, err, c.want, c.body)
		_, _, end, err := readBatches[int](response(c.mediaType, stringsReader(c.body)), httpgather.ReadOptions{})
		require.ErrorIs(t, err, c.want, c.body)
		require.False(t, end)
	}
	rows, err := read[int]("application/json; charset=utf-8", stringsReader(" [ 1 ,\t2 , { \"$end\" : {\"rows\": 2 }} ] \n"))
	require.NoError(t, err, "spaces do not matter")
	require.Equal(t, []int{1, 2}, rows)
	rows, err = read[int](ndjson, stringsReader("\r\n1\r\n\n 2 \n{\"$end\":{\"rows\":2}}\r\n \n"))
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, rows)
}

func TestReadBoundsTheSizeOfRecords(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("x", 8998) + `"` // longer than a reader's buffer
	for mediaType, body := range map[string]string{ndjson: long + "\n{\"$end\":{\"rows\":1}}\n", array: "[" + long + ",{\"$end\":{\"rows\":1}}]"} {
		for most, want := range map[int]error{9000: nil, 8999: httpgather.ErrTooLarge, 1: httpgather.ErrTooLarge, 0: nil} {
			var err error
			for _, e := range httpgather.Read[string](response(mediaType, stringsReader(body)), httpgather.ReadOptions{MaxRecord: most}) {
				err = e
			}
			require.ErrorIs(t, err, want, most)
		}
		_, err := read[string](mediaType, io.MultiReader(stringsReader("[\""), endless{}))
		require.ErrorIs(t, err, httpgather.ErrTooLarge)
	}
	body := stringsReader(strings.Repeat("1234567\n", 100))
	_, _, _, err := readBatches[int](response(ndjson, body), httpgather.ReadOptions{MaxBatch: 100})
	require.ErrorIs(t, err, httpgather.ErrTooLarge)
	_, _, _, err = readBatches[int](response(ndjson, stringsReader(strings.Repeat("1234567\n{\"$cursor\":\"\"}\n", 100)+"{\"$end\":{\"rows\":100}}\n")), httpgather.ReadOptions{MaxBatch: 7})
	require.NoError(t, err, "a checkpoint begins another batch")

	for _, o := range []httpgather.ReadOptions{{MaxRecord: -1}, {MaxBatch: -1}} {
		_, _, _, err := readBatches[int](response(ndjson, body), o)
		require.ErrorContains(t, err, "httpgather: ReadOptions.Max")
	}
}

// endless is a letter, again and again.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestReadReportsWhatTheServerSays(t *testing.T) {
	t.Parallel()
	const failed = "1\n{\"$cursor\":\"1\"}\n2\n{\"$error\":{\"message\":\"sorry\",\"missing\":[\"40-80\"],\"resume\":\"2\"}}\n"
	rows, err := read[int](ndjson, stringsReader(failed))
	require.Equal(t, []int{1, 2}, rows)
	want := &httpgather.RemoteError{Status: 200, Message: "sorry", Missing: []shard.Range{{Start: 0x40 << 56, End: 0x80 << 56}}, Resume: "2"}
	require.Equal(t, want, err)
	require.EqualError(t, err, "httpgather: the server failed, status 200: sorry")

	rows, cursor, end, err := readBatches[int](response(ndjson, stringsReader(failed)), httpgather.ReadOptions{})
	require.Equal(t, want, err)
	require.Equal(t, []int{1, 2}, rows)
	require.Equal(t, "2", cursor)
	require.False(t, end)

	rows, cursor, _, err = readBatches[int](response(ndjson, stringsReader("1\n{\"$cursor\":\"1\"}\n2\n{\"$error\":{}}\n")), httpgather.ReadOptions{})
	require.EqualError(t, err, "httpgather: the server failed, status 200: no reason given")
	require.Equal(t, []int{1}, rows, "where the rest ends is not known")
	require.Equal(t, "1", cursor)

	for _, body := range []string{"", "nonsense", "{}"} {
		res := response("application/problem+json", stringsReader(body))
		res.StatusCode = http.StatusBadGateway
		_, err = readAll(res)
		require.Equal(t, &httpgather.RemoteError{Status: 502}, err)
	}
}

func TestReadClosesTheBody(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"1\n{\"$end\":{\"rows\":1}}\n", "1\n", "1\n1\n"} {
		for _, stop := range []bool{false, true} {
			closed := 0
			res := response(ndjson, nil)
			res.Body = closer{stringsReader(body), &closed}
			for range httpgather.Read[int](res, httpgather.ReadOptions{}) {
				if stop {
					break
				}
			}
			require.Equal(t, 1, closed)
		}
	}
	for _, res := range []*http.Response{nil, {}} {
		_, err := readAll(res)
		require.ErrorContains(t, err, "nil")
	}
}

type closer struct {
	io.Reader
	closed *int
}

func (c closer) Close() error {
	*c.closed++
	return nil
}

func TestReadBatchesStopsWhereItIsTold(t *testing.T) {
	t.Parallel()
	const failed = "1\n{\"$cursor\":\"1\"}\n2\n{\"$error\":{\"resume\":\"2\"}}\n"
	for stop := 1; stop <= 3; stop++ {
		n := 0
		for range httpgather.ReadBatches[int](response(ndjson, stringsReader(failed)), httpgather.ReadOptions{}) {
			if n++; n == stop {
				break
			}
		}
		require.Equal(t, stop, n)
	}
}

// Whatever the bytes are, reading neither panics nor takes for whole what has no end
// record, or would still have one without its last byte.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"{\"ID\":1}\n{\"$cursor\":\"1\"}\n{\"$end\":{\"rows\":1}}\n", "[\n{\"ID\":1},\n{\"$end\":{\"rows\":1}}\n]", "[]", "[1,{\"$end\":{\"rows\":1}}] ", "{\"\\u0024end\":{}}\n", "{\"$error\":{\"missing\":[\"-\"]}}\n", "[[[\"]\\\"\"", "\"\\",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, body string, lines bool) {
		mediaType := array
		if lines {
			mediaType = ndjson
		}
		rows, err := read[any](mediaType, stringsReader(body))
		batched, _, end, batchErr := readBatches[any](response(mediaType, stringsReader(body)), httpgather.ReadOptions{})
		require.Equal(t, err == nil, batchErr == nil)
		require.Equal(t, err == nil, end)
		require.LessOrEqual(t, len(batched), len(rows))
		if err != nil {
			known := false
			for _, e := range []error{httpgather.ErrTorn, httpgather.ErrBadStream, httpgather.ErrTooLarge} {
				known = known || errors.Is(err, e)
			}
			_, remote := errors.AsType[*httpgather.RemoteError](err)
			require.True(t, known || remote, "%v", err)
			return
		}
		require.Len(t, batched, len(rows))
		trimmed := strings.TrimRight(body, " \t\r\n")
		_, err = read[any](mediaType, stringsReader(trimmed[:len(trimmed)-1]))
		require.Error(t, err)
	})
}

// Every text that is served as a row comes back as that row.
func FuzzServe(f *testing.F) {
	f.Add(`{"$end":{"rows":1}}`, true)
	f.Add("]\n\x00\u2028", false)
	f.Fuzz(func(t *testing.T, text string, lines bool) {
		mediaType := array
		if lines {
			mediaType = ndjson
		}
		text = strings.ToValidUTF8(text, "")
		_, body, err := record(mediaType, objects(text, ""), httpgather.Options[map[string]string]{FlushBytes: 1})
		if text == "$end" || text == "$error" || text == "$cursor" {
			require.ErrorIs(t, err, httpgather.ErrReservedKey)
			return
		}
		require.NoError(t, err)
		rows, err := read[map[string]string](mediaType, stringsReader(body))
		require.NoError(t, err)
		require.Equal(t, []map[string]string{{text: text}, {"": ""}}, rows)
	})
}

func TestReadTakesTheGreatestBound(t *testing.T) {
	for _, mediaType := range []string{ndjson, array} {
		_, body, err := record(mediaType, numbered(0, 2, nil), httpgather.Options[row]{})
		require.NoError(t, err)
		for _, err := range httpgather.Read[row](response(mediaType, strings.NewReader(body)), httpgather.ReadOptions{MaxRecord: math.MaxInt}) {
			require.NoError(t, err, mediaType)
		}
	}
}

// A gateway's problem has a member of the same name with other content: the status is hidden.
func TestReadKeepsTheStatusOfAForeignProblem(t *testing.T) {
	res := response("application/problem+json", strings.NewReader(`{"title":"Bad","status":503,"detail":"no","missing":["header X"]}`))
	res.StatusCode = 503
	for _, err := range httpgather.Read[row](res, httpgather.ReadOptions{}) {
		var remote *httpgather.RemoteError
		require.True(t, errors.As(err, &remote), "%v", err)
		require.Equal(t, 503, remote.Status)
	}
}

type wrappingEnd struct{ r io.Reader }

func (w wrappingEnd) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil {
		err = fmt.Errorf("connection reset: %w", err)
	}
	return n, err
}

// An error of the transport that wraps io.EOF is an error.
func TestReadKeepsAnErrorThatWrapsTheEnd(t *testing.T) {
	_, err := read[row](ndjson, wrappingEnd{strings.NewReader("{\"ID\":1}\n")})
	require.ErrorIs(t, err, httpgather.ErrTorn)
	require.ErrorContains(t, err, "connection reset")
}

// A server that notices that the client has gone may still get a word out: the caller
// that cancelled hears of its own cancelling, and can see what the server said.
func TestACancelledRequestIsTornWhateverTheServerStillSays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, word := range []string{`{"$error":{"message":"internal error"}}`, "nonsense"} {
		res := response(ndjson, strings.NewReader("{\"ID\":1}\n"+word+"\n"))
		res.Request = request(ndjson).WithContext(ctx)
		var last error
		for _, err := range httpgather.Read[row](res, httpgather.ReadOptions{}) {
			cancel()
			last = err
		}
		require.ErrorIs(t, last, httpgather.ErrTorn)
		require.ErrorIs(t, last, context.Canceled)
		var remote *httpgather.RemoteError
		require.Equal(t, word != "nonsense", errors.As(last, &remote))
	}
}
