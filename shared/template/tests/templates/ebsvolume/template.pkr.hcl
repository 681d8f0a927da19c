source "amazon-ebsvolume" "data" {
	instance_type = "t3.micro"
	region        = "us-east-1"
	source_ami    = "ami-0123456789abcdef0"
	ssh_username  = "ubuntu"

	ebs_volumes {
		device_name = "/dev/xvdf"
		volume_size = 1
		tags = {
			Name = "data"
		}
	}

	ebs_volumes {
		device_name = "/dev/xvdg"
		volume_size = 1
	}

	dynamic "ebs_volumes" {
		for_each = ["/dev/xvdh"]
		content {
			device_name = ebs_volumes.value
			volume_size = 1
			tag {
				key   = "ciab:stack"
				value = "theirs"
			}
		}
	}
}

build {
	sources = ["amazon-ebsvolume.data"]
}
