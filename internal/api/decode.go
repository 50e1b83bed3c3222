package api

import "errors"

// DecodeCreateCache reads the body of POST cache-config.
func DecodeCreateCache(contentType string, body []byte) (*CreateCache, error) {
	return nil, errors.New("not yet")
}

// DecodePatchCache reads the body of PATCH cache-config.
func DecodePatchCache(contentType string, body []byte) (*PatchCache, error) {
	return nil, errors.New("not yet")
}

// DecodeMissingPaths reads the body of POST get-missing-paths.
func DecodeMissingPaths(contentType string, body []byte) (*MissingPathsRequest, error) {
	return nil, errors.New("not yet")
}

// DecodeClosure reads the body of POST closure.
func DecodeClosure(contentType string, body []byte) (*ClosureRequest, error) {
	return nil, errors.New("not yet")
}

// DecodeUploadInfo reads the description of an upload.
func DecodeUploadInfo(info []byte) (*UploadInfo, error) {
	return nil, errors.New("not yet")
}
