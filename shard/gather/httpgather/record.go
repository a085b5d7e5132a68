package httpgather

import (
	"bytes"
	"encoding/json"
)

// The keys of the control records.
const (
	endKey    = "$end"
	errorKey  = "$error"
	cursorKey = "$cursor"
)

// control is a record that is not a row. One field is set.
type control struct {
	End    *endRecord   `json:"$end,omitempty"`
	Error  *errorRecord `json:"$error,omitempty"`
	Cursor *string      `json:"$cursor,omitempty"`
}

type endRecord struct {
	Rows int64  `json:"rows"`
	Next string `json:"next,omitempty"`
}

type errorRecord struct {
	Message string   `json:"message"`
	Missing []string `json:"missing,omitempty"`
	Resume  string   `json:"resume,omitempty"`
}

// isControl reports whether a record is an object whose first key is one of ours. Both
// sides ask it, the server of each row that it is to send, so they never differ.
func isControl(record []byte) bool {
	const space = " \t\r\n"
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(record, space), []byte{'{'})
	if !ok {
		return false
	}
	rest = bytes.TrimLeft(rest, space)
	if len(rest) == 0 || rest[0] != '"' {
		return false
	}
	end := 1
	for end < len(rest) && rest[end] != '"' {
		if rest[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(rest) {
		return false // not JSON
	}
	name := string(rest[1:end])
	if bytes.IndexByte(rest[:end], '\\') >= 0 && json.Unmarshal(rest[:end+1], &name) != nil {
		return false
	}
	return name == endKey || name == errorKey || name == cursorKey
}
