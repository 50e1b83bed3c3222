package s3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/org/attic-action/internal/blob"
)

// maxEmpty is how many pages without a key may follow each other.
const maxEmpty = 1000

// List implements blob.Lister, a page of a thousand at a time. What is no key of
// ours is passed over.
func (s *Store) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	in := &awss3.ListObjectsV2Input{Bucket: &s.bucket}
	if prefix != "" {
		in.Prefix = &prefix
	}
	last := ""
	for empty := 0; empty < maxEmpty; empty++ {
		page, err := s.page(ctx, in)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			// The order is what ends a listing whose pages repeat themselves.
			if key <= last && last != "" {
				return fmt.Errorf("list %s: the service does not sort: %q after %q", prefix, line(key), last)
			}
			last, empty = key, 0
			if blob.CheckKey(key) != nil {
				continue
			}
			if err := each(blob.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}); err != nil {
				return err
			}
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		if aws.ToString(page.NextContinuationToken) == "" {
			return fmt.Errorf("list %s: the service says that there is more, and not where", prefix)
		}
		in.ContinuationToken = page.NextContinuationToken
	}
	return fmt.Errorf("list %s: %d pages without a key", prefix, maxEmpty)
}

func (s *Store) page(ctx context.Context, in *awss3.ListObjectsV2Input) (page *awss3.ListObjectsV2Output, err error) {
	err = s.retry(ctx, s.patience, func(ctx context.Context, _ *watch) error {
		var err error
		page, err = s.client.ListObjectsV2(ctx, in)
		return err
	})
	return page, err
}

// Delete implements blob.Deleter.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := check(ctx, key)
	if err == nil {
		err = s.retry(ctx, s.patience, func(ctx context.Context, _ *watch) error {
			_, err := s.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.bucket, Key: &key})
			return err
		})
	}
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Presign implements blob.Presigner. S3 signs the method too: the URL answers
// GET, with or without Range, and refuses HEAD. Life is a week at most, and ends
// with the credentials if those are temporary.
func (s *Store) Presign(ctx context.Context, key string, life time.Duration) (string, error) {
	if err := check(ctx, key); err != nil {
		return "", fmt.Errorf("presign %s: %w", key, err)
	}
	const longest = 7 * 24 * time.Hour
	if life < time.Second || life > longest {
		return "", fmt.Errorf("presign %s: a life of %v: want a second to a week", key, life)
	}
	req, err := s.presign.PresignGetObject(ctx, &awss3.GetObjectInput{Bucket: &s.bucket, Key: &key}, awss3.WithPresignExpires(life))
	if err != nil {
		return "", fmt.Errorf("presign %s: %w", key, s.explain(err, false))
	}
	return req.URL, nil
}

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return blob.CheckKey(key)
}

// statusOf is the status of the answer in an SDK's error, or 0.
func statusOf(err error) int {
	var answered *smithyhttp.ResponseError
	if errors.As(err, &answered) && answered.Response != nil {
		return answered.HTTPStatusCode()
	}
	return 0
}

func isNotFound(err error) bool { return statusOf(err) == 404 }
