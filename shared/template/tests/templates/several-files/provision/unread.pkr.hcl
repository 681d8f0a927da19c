source "amazon-ebs" "unread" {}
