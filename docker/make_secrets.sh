#!/bin/sh
# Draws the passwords that compose.yaml hands out as files. What is there is kept.
#
# Containers run as users that the host does not know, so the files are readable by all, and the
# folder by its owner alone.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 022
mkdir -p "$folder"
chmod 700 "$folder"

draw() {
    od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n'
}

keep() {
    if [ -e "$folder/$1" ]; then
        return
    fi
    cat > "$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
    echo "made $folder/$1"
}

for name in postgres_password mlflow_db_password optuna_password \
    mlflow_admin_password mlflow_trainer_password mlflow_secret_key; do
    draw | keep "$name"
done

if [ ! -e "$folder/s3_credentials" ] || [ ! -e "$folder/s3_identities" ]; then
    key=$(draw)
    rm -f "$folder/s3_credentials" "$folder/s3_identities"
    printf '[default]\naws_access_key_id = mlflow\naws_secret_access_key = %s\n' "$key" |
        keep s3_credentials
    printf '{"identities": [{"name": "mlflow", "credentials": [{"accessKey": "mlflow", "secretKey": "%s"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}\n' "$key" |
        keep s3_identities
fi
