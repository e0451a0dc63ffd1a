#!/bin/bash
# User-data for a first run: asks the metadata service who it is, as on EC2.
set -euo pipefail
imds=http://169.254.169.254/latest
token=$(curl -sS -X PUT "$imds/api/token" -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
get() { curl -sSf -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/$1"; }
echo "Hello from $(get instance-id), a $(get instance-type) in $(get placement/availability-zone)"
