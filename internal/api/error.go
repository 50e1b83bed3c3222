package api

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Names of errors, the values of the key "error" in an answer.
const (
	NotFound           = "NotFound"
	Unauthorized       = "Unauthorized"
	AccessError        = "AccessError"
	NoSuchCache        = "NoSuchCache"
	NoSuchObject       = "NoSuchObject"
	CacheAlreadyExists = "CacheAlreadyExists"
	NoSuchPin          = "NoSuchPin" // 404, ours
	RequestError       = "RequestError"
	InternalError      = "InternalServerError"
	InsufficientSpace  = "InsufficientStorage" // 507, ours
	UnknownChunks      = "UnknownChunks"       // 409, ours: Error.Chunks must be sent again
	MissingReferences  = "MissingReferences"   // 409, ours: Error.References are nowhere
)

// Error is an answer that is not a success, in Attic's shape. The members after
// Message are ours and left out when empty; stock clients ignore them.
type Error struct {
	Code       int      `json:"code"`  // the HTTP status
	Name       string   `json:"error"` // one of the names above
	Message    string   `json:"message"`
	Chunks     []string `json:"chunks,omitempty"`     // hex, of UnknownChunks
	References []string `json:"references,omitempty"` // base names, of MissingReferences
	RequestID  string   `json:"request_id,omitempty"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Name, e.Message) }

// JSON returns the body of the answer.
func (e *Error) JSON() []byte {
	b, err := json.Marshal(e)
	if err != nil { // strings and ints always encode
		return []byte(`{"code":500,"error":"InternalServerError","message":"encode error"}`)
	}
	return b
}

// DecodeError reads an error answer. ok is false when body is not one: then the
// answer comes from a proxy, and its text is for people only.
func DecodeError(body []byte) (e *Error, ok bool) {
	var shape struct {
		Code    *int    `json:"code"`
		Name    *string `json:"error"`
		Message *string `json:"message"`
	}
	if json.Unmarshal(body, &shape) != nil || shape.Code == nil || shape.Name == nil || shape.Message == nil {
		return nil, false
	}
	e = new(Error)
	return e, json.Unmarshal(body, e) == nil
}

func badRequest(format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, Name: RequestError, Message: fmt.Sprintf(format, args...)}
}

// wrongShape is 422: the body is JSON, but not what the route takes.
func wrongShape(format string, args ...any) *Error {
	return &Error{Code: http.StatusUnprocessableEntity, Name: RequestError, Message: fmt.Sprintf(format, args...)}
}
