# A Debian package of what is installed: cpack --config build/release/CPackConfig.cmake
install(FILES packaging/vm-receive.service DESTINATION lib/systemd/user)
install(FILES LICENSE DESTINATION share/doc/ferry RENAME copyright)
install(FILES README.md ARCHITECTURE.md GLOSSARY.md DESTINATION share/doc/ferry)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CONTACT "Ferry maintainers <maintainers@ferry.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "KVM virtual machines that can be moved and saved while they run")
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
include(CPack)
