#!/bin/sh
# The user data of a runner on EC2: fetches ciab-runner from the stack's bucket, runs it, and switches the machine off,
# whatever comes. The launch template says that the instance terminates then. What it says goes to the console.
#
# start-runner puts NAME=value lines in the place of the one between the marks, where no value can become code.
set -eu

trap 'echo "The runner is done, exit code $?: the machine is switched off"; shutdown -h now' EXIT

while IFS= read -r value; do
    export "${value?}"
done <<'END_OF_VALUES'
@VALUES@
END_OF_VALUES

# The dead man's timer. By then the runner has long stopped Packer and reported, or never will.
grace_secs=60
seconds=$(($(date -d "$CIAB_DEADLINE" +%s) + grace_secs - $(date +%s)))
[ "$seconds" -gt 0 ] || seconds=0
(
    sleep "$seconds"
    echo 'The time is over: the machine is switched off'
    shutdown -h now
    # The kernel does it where init no longer listens.
    sleep 30
    echo o >/proc/sysrq-trigger
) &

curl_patiently() {
    curl --fail --silent --show-error --retry 8 --retry-delay 2 --retry-all-errors --connect-timeout 5 --max-time 300 "$@"
}

metadata() {
    curl_patiently --noproxy '*' --header "X-aws-ec2-metadata-token: $metadata_token" "$metadata_url/meta-data/$1"
}

# The value of a field of the JSON document on standard input, which has a field a line.
field() {
    sed -n "s/^ *\"$1\" : \"\\(.*\\)\",\\{0,1\\}\$/\\1/p"
}

# One machine has no instance role and gives keys by the environment. They are not exported here: the runner asks the metadata
# itself, again and again, since the keys expire.
key_id=${AWS_ACCESS_KEY_ID:-}
secret=${AWS_SECRET_ACCESS_KEY:-}
session_token=${AWS_SESSION_TOKEN:-}
if [ -z "$key_id" ]; then
    metadata_url=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest
    metadata_token=$(curl_patiently --noproxy '*' --request PUT \
        --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata_url/api/token")
    role=$(metadata iam/security-credentials/)
    credentials=$(metadata "iam/security-credentials/$role")
    key_id=$(printf '%s\n' "$credentials" | field AccessKeyId)
    secret=$(printf '%s\n' "$credentials" | field SecretAccessKey)
    session_token=$(printf '%s\n' "$credentials" | field Token)
fi

# Not /tmp, which may be memory.
directory=/var/lib/ciab-runner
mkdir -p "$directory"
cd "$directory"
case $AWS_REGION in
cn-*) domain=amazonaws.com.cn ;;
*) domain=amazonaws.com ;;
esac
session_header=
[ -z "$session_token" ] || session_header="header = \"x-amz-security-token: $session_token\""
# By standard input, since every process may read another's arguments. The digest is that of an empty body, which S3 wants to
# be told and not every curl tells.
curl_patiently --config - --output ciab-runner <<END_OF_CONFIGURATION
url = "${AWS_ENDPOINT_URL:-https://s3.$AWS_REGION.$domain}/$CIAB_BUCKET/runner/ciab-runner-x86_64"
aws-sigv4 = "aws:amz:$AWS_REGION:s3"
user = "$key_id:$secret"
header = "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
$session_header
END_OF_CONFIGURATION
if [ -n "$CIAB_RUNNER_SHA256" ]; then
    echo "$CIAB_RUNNER_SHA256  ciab-runner" | sha256sum --check --quiet
fi
chmod 0755 ciab-runner

export HOME="${HOME:-/root}"
export TMPDIR="$directory"
./ciab-runner
